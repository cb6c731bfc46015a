"""The rules for one tritonserver command line: what it opens to whom, and which options do not do what they say."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass

from safe_triton.audit.deployment.secrets import is_literal_secret
from safe_triton.audit.deployment.server_command import Given, ServerCommand, restricted, secret_of
from safe_triton.audit.deployment.words import is_unknown
from safe_triton.audit.finding import Finding, Level

EXCESSIVE_SHM_BYTES = 256 << 20
"""Per instance; Triton's default is 1 MiB."""
EXCESSIVE_PINNED_BYTES = 4 << 30
"""Triton's default is 256 MiB."""

_LOOPBACK = re.compile(r"127\.\d+\.\d+\.\d+|localhost|::1|\[::1\]|ip6-localhost", re.IGNORECASE)
# Where, by its name, more than the administrator may write.
_TEMPORARY_NAMES = "tmp var/tmp dev/shm run/user home root mnt data workspace scratch"
_TEMPORARY = tuple(f"/{name}" for name in _TEMPORARY_NAMES.split())
EVERYWHERE = "0.0.0.0"  # noqa: S104  # what Triton binds by default
_SECRET_SETTING = re.compile(
    r"(?:^|[,&?;\s_-])(password|passwd|secret|token|api[_-]?key|credentials?)=(.+)", re.IGNORECASE
)


@dataclass(frozen=True, kw_only=True)
class CommandContext:
    """What the surroundings of a command line tell.

    Args:
        release: container release of the image; empty: unknown.
        writable: folders that a container mounts writable.
        is_program: whether a program starts it: what it computes holds options, a script's ``"$@"`` mostly nothing.
    """

    release: str = ""
    writable: tuple[str, ...] = ()
    is_program: bool = False


NOWHERE = CommandContext()


def judge_server(command: ServerCommand, shown: str, context: CommandContext = NOWHERE) -> list[Finding]:
    """Return the findings of one command line."""
    if any(one.flag.name == "help" for one in command.given):
        return []
    found = [Finding(rule=row.rule, path=shown, line=row.line, message=row.message) for row in command.problems]
    for judge in (_exposure, _tls, _apis, _readiness, _files, _cache_and_secrets, _memory):
        found += judge(command, shown, context)
    return found


def _finding(rule: str, shown: str, line: int, message: str, level: Level | None = None) -> Finding:
    return Finding(rule=rule, path=shown, line=line, message=message, level=level)


def _is_public(command: ServerCommand, api: str) -> bool:
    """Whether other machines reach HTTP, gRPC or the metrics."""
    if not command.is_on(f"allow-{'metrics' if api == 'metrics' else api}", True):
        return False
    # The metrics follow HTTP's address, unless HTTP is off.
    default = command.text("http-address", EVERYWHERE) if api == "metrics" and command.is_on("allow-http", True) else ""
    address = command.text(f"{api}-address", default or EVERYWHERE)
    return not _LOOPBACK.fullmatch(address.strip()) and not is_unknown(address)


def _line_of(command: ServerCommand, *names: str) -> int:
    """The line of the option that decides, else of the command."""
    return next((one.line for name in names if (one := command.last(name)) is not None), command.line)


def _has_tls(command: ServerCommand) -> bool:
    """Whether gRPC really is encrypted."""
    asked = command.is_on("grpc-use-ssl", False) or command.is_on("grpc-use-ssl-mutual", False)
    return asked and all(command.last(name) for name in ("grpc-server-cert", "grpc-server-key"))


def _is_exposed(command: ServerCommand, context: CommandContext, api: str, *deciding: str) -> bool:
    """Whether other machines reach an interface, as far as its options are written down."""
    is_computed = context.is_program and command.is_open and not command.all(*deciding)
    return _is_public(command, api) and not is_computed


def _exposure(command: ServerCommand, shown: str, context: CommandContext) -> Iterator[Finding]:
    deciding = "grpc-use-ssl", "grpc-address"
    has_tls = _has_tls(command) or _may_come(command, "grpc-use-ssl")
    if _is_exposed(command, context, "grpc", *deciding) and not has_tls:
        line = _line_of(command, *deciding)
        yield _finding("no-tls", shown, line, "gRPC is reachable from other machines without TLS")
    deciding = "http-address", "allow-http"
    if _is_exposed(command, context, "http", *deciding):
        line = _line_of(command, *deciding)
        text = "HTTP is reachable from other machines, in plain text: Triton's HTTP has no TLS"
        yield _finding("http-plaintext-exposed", shown, line, text)
    deciding = "metrics-address", "allow-metrics"
    if _is_exposed(command, context, "metrics", *deciding):
        line = _line_of(command, *deciding)
        text = "the metrics, which name every model and its load, are reachable from other machines without a login"
        yield _finding("metrics-exposed", shown, line, text)
    for name in ("allow-sagemaker", "allow-vertex-ai"):
        given = command.last(name)
        if given is not None and command.is_on(name, False):
            text = f"{given.written} opens a further HTTP port that no restriction of APIs covers"
            yield _finding("allow-sagemaker", shown, given.line, text)


def _may_come(command: ServerCommand, name: str) -> bool:
    """Whether an option's value is only known when the command runs."""
    given = command.last(name)
    return given is not None and given.is_unknown


def _tls(command: ServerCommand, shown: str, _: CommandContext) -> Iterator[Finding]:
    refused = [row for row in command.problems if "grpc-use-ssl" in row.message]
    http = [
        row
        for row in command.problems
        if re.search(r"--(https?[-_](use[-_]ssl|server|root|cert|key|tls|ssl)|ssl|tls)", row.message)
    ]
    for row in refused + http:
        text = "this option encrypts nothing: tritonserver refuses to start with it"
        yield _finding("tls-ineffective", shown, row.line, text)
    files = [one for one in command.all("grpc-server-cert", "grpc-server-key", "grpc-root-cert") if one.value]
    ssl, mutual = command.is_on("grpc-use-ssl", False), command.is_on("grpc-use-ssl-mutual", False)
    if _may_come(command, "grpc-use-ssl") or _may_come(command, "grpc-use-ssl-mutual"):
        return
    if not ssl and not mutual:
        if files and not refused:
            text = f"--{files[0].flag.name} without --grpc-use-ssl=true is ignored: gRPC stays plain text"
            yield _finding("tls-ineffective", shown, files[0].line, text)
        return
    line = _line_of(command, "grpc-use-ssl-mutual" if mutual else "grpc-use-ssl")
    if not command.is_on("allow-grpc", True):
        yield _finding("tls-ineffective", shown, line, "TLS is set for gRPC, and gRPC is off: HTTP has no TLS")
        return
    missing = [name for name in ("grpc-server-cert", "grpc-server-key") if not command.text(name)]
    if mutual and not command.text("grpc-root-cert"):
        missing.append("grpc-root-cert")
    if missing and not command.is_open:
        text = (
            f"TLS without --{', --'.join(missing)}: tritonserver refuses to start, or asks no client for a certificate"
        )
        yield _finding("tls-ineffective", shown, line, text)
    elif not mutual:
        root = command.last("grpc-root-cert")
        if root is not None:
            text = "--grpc-root-cert checks no client without --grpc-use-ssl-mutual=true"
            yield _finding("tls-ineffective", shown, root.line, text)
        yield _finding("tls-no-client-auth", shown, line, "every client is accepted: --grpc-use-ssl-mutual is not set")


def _apis(command: ServerCommand, shown: str, _: CommandContext) -> Iterator[Finding]:
    """Which APIs anyone may call."""
    restrictions = {
        "http": command.all("http-restricted-api"),
        "grpc": command.all("grpc-restricted-protocol"),
    }
    for one, name in (pair for given in restrictions.values() for pair in _twice(given)):
        text = f"{name} is restricted twice: tritonserver refuses to start"
        yield _finding("invalid-flag-value", shown, one.line, text)
    served = [api for api in restrictions if command.is_on(f"allow-{api}", True)]
    covered = {api: restricted(given) for api, given in restrictions.items() if api in served}
    yield from _model_control(command, shown, covered)
    # A list that only the running system knows may be the same.
    if len(covered) == 2 and any(covered.values()) and not any(one.is_unknown for one in _lists(restrictions)):
        for less, more, words in (("grpc", "http", "HTTP only: gRPC"), ("http", "grpc", "gRPC only: HTTP")):
            names = sorted(covered[more] - covered[less])
            if names:
                text = f"{', '.join(names)} restricted for {words} serves the same without the secret"
                yield _finding("restricted-api-partial", shown, restrictions[more][0].line, text)


def _lists(restrictions: dict[str, list[Given]]) -> list[Given]:
    """Restrictions whose list of APIs is not written out; a secret never is."""
    return [one for given in restrictions.values() for one in given if is_unknown(one.value.partition(":")[0])]


def _model_control(command: ServerCommand, shown: str, covered: dict[str, set[str]]) -> Iterator[Finding]:
    """Who may load models."""
    mode = command.last("model-control-mode")
    control = mode.value.lower() if mode is not None else "none"
    line = mode.line if mode is not None else command.line
    for load in command.all("load-model")[:1] if control in {"none", "poll"} else ():
        text = "--load-model without --model-control-mode=explicit: tritonserver refuses to start"
        yield _finding("invalid-flag-value", shown, load.line, text)
    public = [api for api in covered if _is_public(command, api)]
    open_ = [api for api, names in covered.items() if "model-repository" not in names]
    if control == "explicit" and open_:
        if len(open_) == len(covered):
            text = "anyone who reaches the load API can run code: model-repository is restricted nowhere"
            # What comes with "$@" may restrict it.
            level = None if public and not command.is_open else Level.WARNING
            yield _finding("restricted-api-missing", shown, line, text, level)
        yield _finding("model-control-open", shown, line, "models can be loaded and replaced without a secret")
    elif control != "explicit" and public and not any(covered.values()) and not command.is_open:
        text = "shared memory, trace and log settings can be changed by anyone: no API is restricted"
        yield _finding("restricted-api-missing", shown, command.line, text, Level.INFO)
    if control == "poll":
        text = "whoever can write to the repository runs code in the server at the next poll"
        yield _finding("model-control-open", shown, line, text)


def _twice(given: list[Given]) -> list[tuple[Given, str]]:
    """APIs that stand in more than one restriction."""
    seen: set[str] = set()
    found = []
    for one in given:
        for name in one.value.partition(":")[0].split(","):
            if name in seen:
                found.append((one, name))
            seen.add(name)
    return found


def _readiness(command: ServerCommand, shown: str, _: CommandContext) -> Iterator[Finding]:
    for name, rule, text in (
        ("strict-readiness", "strict-readiness-off", "/v2/health/ready says yes although models are unavailable"),
        ("exit-on-error", "exit-on-error-off", "the server starts although models did not load"),
    ):
        given = command.last(name)
        if given is not None and not command.is_on(name, True):
            yield _finding(rule, shown, given.line, f"{given.written}: {text}")


def is_inside(path: str, folder: str) -> bool:
    """Tell whether a path is a folder or below it, by components."""
    path, folder = posixpath.normpath(path), posixpath.normpath(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _files(command: ServerCommand, shown: str, context: CommandContext) -> Iterator[Finding]:
    repositories = [path for path in command.repositories if path and not path.startswith(("s3://", "gs://", "as://"))]
    logs = [*command.all("log-file")[-1:], *command.all("trace-file")[-1:], *command.all("trace-config")]
    for one in logs:
        path = one.value.rpartition("file=")[2] if one.flag.name == "trace-config" else one.value
        if one.flag.name == "trace-config" and "file=" not in one.value:
            continue
        inside = next((repository for repository in repositories if path and is_inside(path, repository)), None)
        if inside is not None:
            text = f"{one.written} is written into the model repository {inside}"
            yield _finding("log-file-in-repo", shown, one.line, text)
    for name in ("backend-directory", "repoagent-directory", "cache-directory"):
        given = command.last(name)
        if given is None or given.is_unknown or not given.value:
            continue
        path = given.value
        writable = not path.startswith("/") or any(is_inside(path, top) for top in (*_TEMPORARY, *context.writable))
        if writable or any(is_inside(path, repository) for repository in repositories):
            text = (
                f"{given.written}: libraries are loaded from a folder that others than the administrator may write to"
            )
            yield _finding("backend-dir-writable", shown, given.line, text)


def _cache_and_secrets(command: ServerCommand, shown: str, _: CommandContext) -> Iterator[Finding]:
    redis = [one for one in command.all("cache-config") if one.value.startswith("redis")]
    settings = dict(part.partition("=")[::2] for one in redis for part in one.value.split(",")[1:])
    host = settings.get("host", "")
    if redis and settings.get("tls_enabled", "").lower() != "true" and not _LOOPBACK.fullmatch(host):
        text = f"responses go to redis at {host or 'another host'} in plain text, and come back unchecked"
        yield _finding("cache-plaintext", shown, redis[0].line, text)
    for one in command.given:
        secret = secret_of(one) if one.flag.kind == "restriction" else ""
        if not secret:
            found = _SECRET_SETTING.search(one.value)
            secret = found[2] if found else ""
        userinfo = re.search(r"\w://[^/@\s:]*:([^/@\s]+)@", one.value)
        if is_literal_secret(secret) or (userinfo and is_literal_secret(userinfo[1])):
            text = f"--{one.flag.name} holds a secret: every process of the host can read it, and this file keeps it"
            yield _finding("secrets-on-command-line", shown, one.line, text)


def _memory(command: ServerCommand, shown: str, _: CommandContext) -> Iterator[Finding]:
    for one in command.all("backend-config"):
        found = re.search(r"shm-(?:default|growth)-byte-size=(\d+)", one.value)
        if found and int(found[1][:20]) > EXCESSIVE_SHM_BYTES:
            text = f"{one.written}: every instance takes that much shared memory; the default is 1 MiB"
            yield _finding("shm-excessive", shown, one.line, text)
    pool = command.last("pinned-memory-pool-byte-size")
    if pool is not None and pool.value.isdigit() and int(pool.value[:20]) >= EXCESSIVE_PINNED_BYTES:
        yield _finding(
            "shm-excessive", shown, pool.line, f"{pool.written}: pinned memory cannot be used by anything else"
        )
