"""The command line of a hardened tritonserver: what is added for the release at hand, what an operator may not undo."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from safe_triton.errors import ServerStartError
from safe_triton.server.process import run_briefly

if TYPE_CHECKING:
    from safe_triton.server.installation import TritonInstallation

SECRET_HEADER = "safe-triton-admin"  # noqa: S105 - the header's name, not its value
"""HTTP header of the restricted APIs; over gRPC its name has :data:`GRPC_HEADER_PREFIX` in front.

:mod:`safe_triton.gateway.apis` has it again: importing that here would make every command start 0.1 s later.
"""

GRPC_HEADER_PREFIX = "triton-grpc-protocol-"

RESTRICTED_APIS = ("shared-memory", "model-config", "model-repository", "statistics", "trace", "logging")
"""Everything but inference, metadata and health: what changes the server, reads its files or tells about others."""

PORT_FLAGS = ("--http-port", "--grpc-port", "--metrics-port")

_FLAG = re.compile(r"^\s+(--[a-z0-9-]+)( <)?", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class HardenedFlag:
    """One flag of a hardened server.

    Args:
        name: of the flag.
        value: as it is passed.
        why: what it protects against.
        since: first server version that has it.
    """

    name: str
    value: str
    why: str
    since: str = "2.51.0"


HARDENED: tuple[HardenedFlag, ...] = (
    HardenedFlag(
        name="--strict-readiness", value="true", why="ready means that every model is, not only that the server answers"
    ),
    HardenedFlag(
        name="--reuse-http-port", value="false", why="no other program of this user takes requests meant for us"
    ),
    HardenedFlag(
        name="--reuse-grpc-port", value="false", why="no other program of this user takes requests meant for us"
    ),
    HardenedFlag(name="--allow-sagemaker", value="false", why="no second HTTP listener on a public address"),
    HardenedFlag(name="--allow-vertex-ai", value="false", why="no second HTTP listener on a public address"),
    HardenedFlag(name="--model-namespacing", value="false", why="one name means one model in every rule of the policy"),
    HardenedFlag(
        name="--http-max-input-size",
        value="67108864",
        why="a request of 64 MiB is refused before it is parsed",
        since="2.59.0",
    ),
    HardenedFlag(
        name="--allow-client-shm", value="false", why="clients register no shared memory of this host", since="2.68.0"
    ),
)

REFUSED_FLAGS: Mapping[str, str] = {
    "--allow-client-shm": "it lets clients map the host's shared memory",
    "--allow-http": "the supervisor asks the server over HTTP whether its models live",
    "--allow-sagemaker": "it opens a second HTTP listener on a public address",
    "--allow-vertex-ai": "it opens a second HTTP listener on a public address",
    "--backend-directory": "the launcher that confines every model stands there",
    "--cache-directory": "a library in it is loaded into tritonserver itself",
    "--disable-auto-complete-config": 'it is on; give one model auto_complete = { reason = "…" } in the policy',
    "--exit-on-error": "a model that fails must not end the others; see --allow-failed",
    "--exit-timeout-secs": "stop_timeout_s of the policy sets it",
    "--grpc-address": "address of the policy sets it",
    "--grpc-restricted-protocol": "the administrative APIs are restricted already, under a random secret",
    "--http-address": "address of the policy sets it",
    "--http-header-forward-pattern": "headers hold credentials, and models would read them",
    "--grpc-header-forward-pattern": "headers hold credentials, and models would read them",
    "--http-restricted-api": "the administrative APIs are restricted already, under a random secret",
    "--id": "the supervisor knows its server by it",
    "--load-model": "it needs explicit model control, with which one model can replace another's code",
    "--log-file": "the supervisor writes the log, so that models can only add to it",
    "--metrics-address": "address of the policy sets it",
    "--model-control-mode": "explicit control lets one model replace another's code",
    "--model-namespacing": "one name has to mean one model in every rule of the policy",
    "--model-repository": "name the repository before --; every model in it is confined",
    "--model-store": "name the repository before --; every model in it is confined",
    "--repoagent-directory": "a library in it is loaded into tritonserver itself",
    "--repository-poll-secs": "the supervisor reloads models through it",
    "--reuse-grpc-port": "another program could take requests that are meant for this server",
    "--reuse-http-port": "another program could take requests that are meant for this server",
    "--strict-model-config": "it is the old name of --disable-auto-complete-config, which is on",
    "--strict-readiness": "the health of the server would be told without its models",
    "--trace-config": "it writes files as the server, where its value says",
    "--trace-file": "it writes files as the server, where its value says",
}
"""Flags that undo or get around a protection, with the reason that is shown."""

_REFUSED_VALUES: Mapping[str, tuple[re.Pattern[str], str]] = {
    "--backend-config": (re.compile(r"python,"), "the Python backend's settings belong to the launcher"),
    "--rate-limit": (re.compile(r"off$"), "models that declare resources rely on it"),
}


@dataclass(frozen=True, kw_only=True)
class Hardening:
    """Flags for one server.

    Args:
        arguments: to pass.
        absent: flags of the table that this release does not have, with what is missing without them.
    """

    arguments: tuple[str, ...]
    absent: tuple[HardenedFlag, ...]


@dataclass(frozen=True, kw_only=True)
class UserFlags:
    """What an operator wrote after ``--``.

    Args:
        ports: of HTTP, gRPC and the metrics where given.
        arguments: everything else, under full names, as ``--name=value``.
    """

    ports: Mapping[str, int]
    arguments: tuple[str, ...]


def known_flags(installation: TritonInstallation) -> dict[str, bool]:
    """Return the flags of a server and whether each takes a value, as its ``--help`` says.

    Raises:
        ServerStartError: reason ``server.flag``; it prints no help.
    """
    libraries = os.pathsep.join(str(folder) for folder in installation.library_path)
    try:
        said = run_briefly(
            [installation.binary, "--help"], environment={"PATH": os.defpath, "LD_LIBRARY_PATH": libraries}
        ).output
    except (OSError, TimeoutError) as error:
        raise ServerStartError(f"tritonserver --help: {error}", reason="server.flag") from None
    flags: dict[str, bool] = {}
    for match in _FLAG.finditer(said):  # a flag's name may stand again at the start of a line of another's text
        flags[match[1]] = flags.get(match[1], False) or bool(match[2])
    if "--model-repository" not in flags:
        raise ServerStartError("tritonserver --help names no flags", reason="server.flag")
    return flags


def harden(known: Iterable[str], secret: str, resources: Mapping[str, int]) -> Hardening:
    """Return the hardened flags that a release has; pure.

    Args:
        known: the release's flags, from :func:`known_flags`.
        secret: value of the header of the restricted APIs, random for each start.
        resources: highest count of each rate-limiter resource that a model's configuration asks for.

    Does not cover:
        Other users of the host, who read the secret in the list of processes: Triton takes it on its command line only.
        Confined models cannot.
    """
    flags = set(known)
    arguments = [f"{row.name}={row.value}" for row in HARDENED if row.name in flags]
    apis = ",".join(RESTRICTED_APIS)
    arguments += [
        f"--http-restricted-api={apis}:{SECRET_HEADER}={secret}",
        f"--grpc-restricted-protocol={apis}:{SECRET_HEADER}={secret}",
    ]
    if resources:
        arguments.append("--rate-limit=execution_count")
        arguments += [f"--rate-limit-resource={name}:{count}" for name, count in sorted(resources.items())]
    return Hardening(arguments=tuple(arguments), absent=tuple(row for row in HARDENED if row.name not in flags))


def check_user_flags(words: Sequence[str], known: Mapping[str, bool]) -> UserFlags:
    """Read what an operator wrote after ``--``; pure.

    Args:
        words: the arguments, as typed: ``--name=value``, ``--name value``, abbreviated like Triton allows it.
        known: the release's flags and whether each takes a value.

    Raises:
        ServerStartError: reason ``server.flag``; the flag is unknown, ambiguous, lacks its value, or undoes a
            protection.
    """
    ports: dict[str, int] = {}
    arguments = []
    left = list(words)
    while left:
        word = left.pop(0)
        written, has_value, value = word.partition("=")
        name = _full_name(written, known)
        if known[name] and not has_value:
            if not left:
                raise _refused(f"{name} needs a value")
            value = left.pop(0)
        elif has_value and not known[name]:
            raise _refused(f"{name} takes no value, not {value!r}")
        if name in REFUSED_FLAGS:
            raise _refused(f"{name}: {REFUSED_FLAGS[name]}")
        pattern, why = _REFUSED_VALUES.get(name, (None, ""))
        if pattern is not None and pattern.match(value):
            raise _refused(f"{name}={value}: {why}")
        if name in PORT_FLAGS:
            ports[name] = _port(name, value)
        else:
            arguments.append(f"{name}={value}" if known[name] else name)
    return UserFlags(ports=ports, arguments=tuple(arguments))


def rate_limiter_resources(configs: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Return the highest count of each resource that an instance of a model asks for, by name; pure."""
    found: dict[str, int] = {}
    for config in configs:
        for group in config.get("instance_group", ()):
            for row in group.get("rate_limiter", {}).get("resources", ()):
                name = str(row.get("name", ""))
                found[name] = max(found.get(name, 1), int(row.get("count", 1)))
    return found


def _full_name(written: str, known: Mapping[str, bool]) -> str:
    if not written.startswith("--"):
        raise _refused(f"{written!r} is no flag of tritonserver; every flag starts with --")
    if written in known:
        return written
    matches = [name for name in known if name.startswith(written)]
    if len(matches) == 1:
        return matches[0]
    what = f"is ambiguous: {', '.join(sorted(matches))}" if matches else "is unknown to this release of tritonserver"
    raise _refused(f"{written} {what}")


def _port(name: str, value: str) -> int:
    if not value.isascii() or not value.isdecimal() or int(value) > 65_535:
        raise _refused(f"{name} must be a port from 0 to 65535, not {value!r}")
    return int(value)


def _refused(message: str) -> ServerStartError:
    return ServerStartError(f"flags after --: {message}", reason="server.flag")
