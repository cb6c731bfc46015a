"""``safe-triton serve``: the real server, hardened and supervised, every Python model confined from the start."""

from __future__ import annotations

import contextlib
import datetime as dt
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from safe_triton.cli.formats import refusals, widened
from safe_triton.server.hardening import RESTRICTED_APIS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from safe_triton.policyfile import GatewayPolicy
    from safe_triton.server import StartProgress
    from safe_triton.supervision.gateway import Gateway
    from safe_triton.supervision.service import Preparation, Service

MOST_WARNINGS = 10
STDOUT = 1
"""The descriptor; an object in the place of ``sys.stdout`` need not have any."""


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("serve")(serve)


@refusals()
def serve(
    repository: Annotated[list[str], typer.Argument(help="Model repository; several are served together.")],
    policy: Annotated[Path | None, typer.Option(help="The operator's policy, safe-triton.toml.")] = None,
    protect: Annotated[
        bool, typer.Option("--protect", help="Serve unmodified models under the SDK's checks too.")
    ] = False,
    gateway: Annotated[
        bool,
        typer.Option("--gateway", help="Envoy in front of it, as [gateway] of the policy says: TLS, roles, limits."),
    ] = False,
    allow_failed: Annotated[
        bool, typer.Option("--allow-failed", help="Serve although a model failed to load; it is tried again.")
    ] = False,
) -> None:
    """Start tritonserver, hardened, with every Python model confined, and keep it and its models alive until Ctrl-C.

    Before anything starts, the repository is checked and compared with its lock file. A model reads its own folder, the
    Python environment and system libraries; everything else it may touch stands in the policy. A model that dies or
    hangs is loaded again; one that keeps failing is quarantined. Flags of tritonserver, such as its ports, follow after
    --. SIGHUP reads the policy again and takes over what changed in the repositories. With --gateway, clients reach the
    models through Envoy alone, which takes a new policy over without dropping a request.

    The server's log goes to standard output, everything else to standard error.

    Exit status: 0 after Ctrl-C or SIGTERM, 2 when it could not be started.
    """
    from safe_triton.policyfile import load_policy
    from safe_triton.supervision.service import Service

    models, flags = split_flags(repository)
    console = widened(Console(stderr=True))
    stop = _Stop()
    hangups: list[int] = []  # of a start: it must not be their end, and the policy was read before them
    signal.signal(signal.SIGHUP, lambda number, _: hangups.append(number))
    try:
        operator = load_policy(policy)
        with console.status("starting") as status, _stdout_log(operator.server.log_format) as on_log:
            service = Service(
                models,
                operator,
                protect=protect,
                gateway=gateway,
                flags=flags,
                allow_failed=allow_failed,
                on_step=status.update,
                on_progress=lambda progress: status.update(_progress_text(progress)),
                on_log=on_log,
            )
            try:
                service.start()
                stop.is_starting = False
                signal.signal(signal.SIGHUP, lambda *_: service.reload())
                if hangups:
                    service.reload()
                status.stop()
                _print_summary(console, service)
                service.run(stop.event)
            finally:
                stop.is_starting = False
                service.stop()
    except _StartInterrupted:
        raise typer.Exit(0) from None


def split_flags(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split positional words into repositories and the flags of tritonserver after them."""
    first = next((index for index, word in enumerate(words) if word.startswith("--")), len(words))
    return list(words[:first]), list(words[first:])


class _StartInterrupted(BaseException):
    """Ctrl-C before the server was ready."""


class _Stop:
    """Ends a start at once and a running server in order, on the first SIGINT or SIGTERM."""

    def __init__(self) -> None:
        self.event = threading.Event()
        self.is_starting = True
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)

    def _handle(self, *_: object) -> None:
        is_first = not self.event.is_set()
        self.event.set()
        if self.is_starting and is_first:
            raise _StartInterrupted


@contextlib.contextmanager
def _stdout_log(log_format: str) -> Iterator[Callable[[bytes], None]]:
    """Copy whole lines of the log to standard output, where there is one."""
    from safe_triton.cli.log_copy import LogCopy
    from safe_triton.server.log_lines import as_json

    if sys.stdout is None:  # whoever started this has closed it
        yield lambda _: None
        return
    copy = LogCopy(STDOUT, as_json if log_format == "json" else str)
    try:
        yield copy.feed
    finally:
        copy.close()


def _progress_text(progress: StartProgress) -> str:
    waiting = ", ".join(progress.models_loading[:3])
    return f"starting tritonserver: {progress.elapsed_s:.0f} s, {progress.models_ready} models ready {waiting}"


def _print_summary(console: Console, service: Service) -> None:
    """Say what is served, under which rings, what does not hold, and where."""
    from safe_triton.audit.finding import Level
    from safe_triton.audit.rules.table import level_of

    ready, server, supervisor = service.running()
    table = Table("model", "version", "state", "rings", "reason")
    checked = service.checked()
    for row in server.models():
        found = next((model for model in ready.models if model.name == row.name), None)
        is_python = found is not None and found.is_python
        checks = "protected" if row.name in service.protected else "checked" if row.name in checked else ""
        rings = [*(["confined"] if is_python else []), *([checks] if checks else [])]
        table.add_row(row.name, row.version, row.state, ", ".join(rings) or "server only", row.reason)
    if table.rows:
        console.print(table)
    else:
        console.print("there is no model in the repository; SIGHUP takes over those that come", highlight=False)
    for line in gap_lines(service.enforcement_gaps()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in unchecked_lines(service.unchecked_limits()):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    shown = [finding for finding in ready.warnings if level_of(finding) >= Level.WARNING][:MOST_WARNINGS]
    for finding in shown:
        console.print(
            f"{finding.path}: {finding.rule}: {finding.message}", highlight=False, markup=False, soft_wrap=True
        )
    if rest := len(ready.warnings) - len(shown):
        console.print(f"{rest} more findings; safe-triton check shows them", highlight=False)
    for flag in ready.absent:
        console.print(f"not held, since this release has no {flag.name}: {flag.why}", highlight=False, soft_wrap=True)
    for name, policy in ready.policies.items():
        for place, token in {**policy.limits.tokens(), **policy.sandbox.tokens()}.items():
            console.print(f"{name}: {place}: {type(token).__name__}: {token.reason}", highlight=False, markup=False)
    if service.gateway is not None:
        _print_gateway(console, service.gateway, ready)
    places = {
        "HTTP": server.http_url,
        "gRPC": server.grpc_url,
        "metrics": server.metrics_url,
        "health": supervisor.url.removeprefix("http://"),
        "log": str(server.log),
        "admin": f"{service.admin_file} opens {', '.join(RESTRICTED_APIS)}",
    }
    if (gateway := service.gateway) is not None:
        places["gateway"] = f"{gateway.url}, its metrics {gateway.metrics_url}, its log {gateway.log.path}"
    for name, place in places.items():
        console.print(f"{name:<8} {place}", highlight=False, markup=False, soft_wrap=True)
    locked = "the repository is as locked" if ready.is_locked else "the repository has no lock file"
    console.print(f"{locked}; Ctrl-C ends the server", highlight=False)


def gap_lines(gaps: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for each thing that was asked for and does not hold, with the models concerned; pure."""
    return [f"not enforced: {gap} (models {names})" for gap, names in _models_by_text(gaps).items()]


def unchecked_lines(limits: Mapping[str, Sequence[str]]) -> list[str]:
    """Return a line for the limits that nothing checks, with the models that they were written for; pure."""
    models = _models_by_text({name: [", ".join(keys)] for name, keys in limits.items()})
    return [
        f"not checked: {keys} (models {names}): these classes are unmodified; "
        "serve --protect, or protect = true in their tables"
        for keys, names in models.items()
    ]


def _models_by_text(texts: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Turn what is said of each model around: for each text the names of its models."""
    models: dict[str, list[str]] = {}
    for name in sorted(texts):
        for text in texts[name]:
            models.setdefault(text, []).append(name)
    return {text: ", ".join(names) for text, names in models.items()}


def _print_gateway(console: Console, gateway: Gateway, ready: Preparation) -> None:
    """Say who may call what, and what nobody can call."""
    policy, envoy = gateway.policy, ready.envoy
    if envoy is not None and not envoy.is_tested:
        console.print(f"Envoy {envoy.version} is newer than what the gateway was tested with", highlight=False)
    counts = f"identities: {len(policy.identities)}, roles: {len(policy.roles)}"
    console.print(f"gateway: {counts}", highlight=False)
    if policy.certificate and (
        line := expired(Path(policy.certificate).read_bytes(), dt.datetime.now(dt.timezone.utc))
    ):
        console.print(f"gateway: {line}: no client connects until it is replaced", highlight=False)
    for name in unreachable(policy, [model.name for model in ready.models]):
        console.print(
            f"gateway: no role of an identity names {name}: nobody can call it", highlight=False, markup=False
        )
    for gap in gateway.enforcement_gaps():
        console.print(f"gateway: not enforced: {gap}", highlight=False, markup=False, soft_wrap=True)


def expired(certificate: bytes, now: dt.datetime) -> str:
    """Say since when a certificate (PEM) is no longer valid; empty where it is, or where nobody can tell; pure."""
    try:
        from cryptography import x509

        ends = x509.load_pem_x509_certificate(certificate).not_valid_after_utc
    except (ModuleNotFoundError, ValueError):  # Envoy has read it, and judges the rest
        return ""
    return f"the certificate expired on {ends:%Y-%m-%d %H:%M} UTC" if ends < now else ""


def unreachable(policy: GatewayPolicy, models: Sequence[str]) -> list[str]:
    """Return the models that no identity's role may infer; pure."""
    held = {role for identity in policy.identities.values() for role in identity.roles}
    held |= {policy.anonymous.role} if policy.anonymous else set()
    called = {
        name
        for role in held
        if {"infer", "stream"} & set(policy.roles[role].verbs)
        for name in policy.roles[role].models
    }
    return [] if "*" in called else [name for name in models if name not in called]
