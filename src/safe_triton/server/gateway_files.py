"""From a policy to what an Envoy is started with: the files that it names are read, everything is compiled."""

from __future__ import annotations

import ipaddress
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safe_triton.errors import ServerStartError
from safe_triton.gateway import BOOTSTRAP, VALIDATED, check_private_key, compile_gateway, read_keys
from safe_triton.gateway.form import running_form
from safe_triton.server.envoy import SOCKET, EnvoyGrants

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy, OperatorPolicy
    from safe_triton.policyfile.gateway_tables import Upstream

MOST_BYTES = 1 << 20
"""Of one file that a policy names: certificates and keys have a few thousand."""

Fingerprint = tuple[tuple[str, int, int, int] | str, ...]


@dataclass(frozen=True, kw_only=True)
class GatewayPlan:
    """Everything about one configuration of a gateway.

    Args:
        policy: that it was compiled from.
        gateway: its table.
        models: that are served.
        texts: Envoy's files by name.
        static: the same as one configuration, which Envoy can check without starting.
        grants: what Envoy may touch.
        files: paths that the policy names.
        seen: their fingerprint before they were read.
    """

    policy: OperatorPolicy
    gateway: GatewayPolicy
    models: tuple[str, ...]
    texts: Mapping[str, str]
    static: str
    grants: EnvoyGrants
    files: tuple[str, ...]
    seen: Fingerprint

    def fixed_differences(self, running: GatewayPlan) -> tuple[str, ...]:
        """Return names of settings that differ and that hold for an Envoy's whole life; pure."""
        names = ("port", "metrics_port", "max_connections", "drain_s")
        found = [name for name in names if getattr(self.gateway, name) != getattr(running.gateway, name)]
        if self.grants.write != running.grants.write:
            found.append("access_log")
        if self.grants.connect_ports != running.grants.connect_ports:
            found.append("upstreams")
        if not found and self.texts[BOOTSTRAP] != running.texts[BOOTSTRAP]:
            found.append("something that Envoy reads only when it starts")
        return tuple(found)


def plan_gateway(
    policy: OperatorPolicy,
    *,
    models: Collection[str],
    folder: Path,
    upstream: Upstream,
    secret: str,
    ports: tuple[int, int],
) -> GatewayPlan:
    """Read the files that a policy names and compile it.

    Args:
        policy: the operator's, with a table ``[gateway]``.
        models: that are served.
        folder: where Envoy's files will lie.
        upstream: the Triton behind it, where the policy names none.
        secret: of Triton's restricted APIs.
        ports: of requests and of metrics.

    Raises:
        ServerStartError: reason ``gateway.policy``: there is no such table; ``gateway.file``: a file that it names
            cannot be read.
        PolicyError: reason ``gateway.key``; a key that is none, or that others can read.
    """
    gateway = gateway_of(policy)
    named = dict(named_files(gateway))
    seen = fingerprint(named.values())
    check_private_key(policy)
    contents = {
        path: _read(f"{policy.path}:{policy.gateway_line(place)}: gateway.{'.'.join(place)}", path)
        for place, path in named.items()
        if place[-1] != "api_key_file"
    }
    compiled = compile_gateway(
        gateway.model_copy(update={"port": ports[0], "metrics_port": ports[1]}),
        models=models,
        keys=read_keys(policy),
        folder=str(folder),
        upstreams=(upstream,),
        admin_secret=secret,
        admin_socket=SOCKET,  # below its working directory: an address has room for 107 bytes
    )
    texts = running_form(compiled.texts, str(folder), contents)
    static = texts.pop(VALIDATED)
    log = gateway.access_log
    return GatewayPlan(
        policy=policy,
        gateway=gateway,
        models=tuple(sorted(models)),
        texts=texts,
        static=static,
        grants=EnvoyGrants(
            listen_ports=ports,
            connect_ports=connect_ports(gateway, upstream),
            write=(log,) if isinstance(log, str) and log != "stdout" else (),
            max_connections=gateway.max_connections,
            drain_s=gateway.drain_s,
        ),
        files=tuple(named.values()),
        seen=seen,
    )


def gateway_of(policy: OperatorPolicy) -> GatewayPolicy:
    """Return a policy's table.

    Raises:
        ServerStartError: reason ``gateway.policy``.
    """
    if policy.gateway is None:
        raise ServerStartError(
            f"{policy.path}: there is no table [gateway]"
            if policy.path
            else "no policy with a table [gateway]: name one with --policy",
            reason="gateway.policy",
        )
    return policy.gateway


def connect_ports(gateway: GatewayPolicy, upstream: Upstream) -> tuple[int, ...] | Literal["any"]:
    """Return the ports of what is behind a gateway; any where keys are fetched from a name on the network; pure."""
    if any(issuer.jwks_url for issuer in gateway.jwt.values()):
        return "any"
    behind = gateway.upstreams or (upstream,)
    if not all(is_number(row.address) for row in behind):
        return "any"  # names are asked of name servers
    ports = {port for row in behind for port in (row.http_port, row.grpc_port, row.health_port, row.metrics_port)}
    return tuple(sorted(ports - {0}))


def is_number(address: str) -> bool:
    """Tell whether an address needs no name server."""
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def named_files(gateway: GatewayPolicy) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield place below ``[gateway]`` and path of every file that a policy names; pure."""
    for name in ("certificate", "private_key", "client_ca"):
        if path := getattr(gateway, name):
            yield (name,), path
    for issuer, jwt in gateway.jwt.items():
        for name in ("jwks_file", "jwks_ca"):
            if path := getattr(jwt, name):
                yield ("jwt", issuer, name), path
    for caller, identity in gateway.identities.items():
        if identity.api_key_file:
            yield ("identities", caller, "api_key_file"), identity.api_key_file


def fingerprint(paths: Collection[str]) -> Fingerprint:
    """Return what changes when one of the files is replaced or written; links are followed."""
    found: list[tuple[str, int, int, int] | str] = []
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            found.append(path)
        else:
            found.append((path, status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _read(place: str, path: str) -> str:
    """Read one file whole."""
    try:
        with open(path, encoding="utf-8", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ServerStartError(f"{place}: {path} is no plain file", reason="gateway.file")
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ServerStartError(f"{place}: {path}: {error.strerror}", reason="gateway.file") from None
    except UnicodeDecodeError:
        raise ServerStartError(f"{place}: {path} is no text; PEM is needed", reason="gateway.file") from None
    if len(text) > MOST_BYTES:
        raise ServerStartError(f"{place}: {path} has more than {MOST_BYTES} bytes", reason="gateway.file")
    return text


def _open_at_once(path: str, flags: int) -> int:
    """Open without a wait for whoever would write to a FIFO: all supervision would wait with it."""
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
