"""One hardened, supervised tritonserver with its gateway: what ``safe-triton serve`` does behind its screen."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.confinement.plan import Capabilities, plan
from safe_triton.confinement.probe import probe
from safe_triton.errors import ConfinementError, ServerStartError
from safe_triton.policy.sandbox import PLACEHOLDERS, SandboxPolicy
from safe_triton.policyfile.gateway_tables import Upstream, is_loopback
from safe_triton.policyfile.model_policy import DEFAULT
from safe_triton.server import TritonServer, locate
from safe_triton.server.hardening import (
    GRPC_HEADER_PREFIX,
    SECRET_HEADER,
    HardenedFlag,
    check_user_flags,
    harden,
    known_flags,
    rate_limiter_resources,
)
from safe_triton.server.log_lines import whole_lines
from safe_triton.server.policies import effective_policies
from safe_triton.server.ports import ReservedPorts
from safe_triton.server.served import ServedModel, read_models, with_backend
from safe_triton.server.workspace import check_repositories
from safe_triton.supervision.advice import advised
from safe_triton.supervision.locks import check_locks
from safe_triton.supervision.log_hints import LogHints
from safe_triton.supervision.supervisor import Supervisor

if TYPE_CHECKING:
    import threading
    from types import TracebackType

    from typing_extensions import Self

    from safe_triton.audit.finding import Finding
    from safe_triton.policyfile import GatewayPolicy, ModelPolicy, OperatorPolicy, ServerPolicy
    from safe_triton.server import StartProgress, TritonInstallation
    from safe_triton.server.envoy_binary import EnvoyInstallation
    from safe_triton.supervision.gateway import Gateway

ADMIN_FILE = "admin-headers"
LOG_TIMES = "--log-format=ISO8601"
OTHER_PORTS = "other ports: [server] in safe-triton.toml, or flags after --: --http-port, --grpc-port, --metrics-port"


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """What is known before anything is started.

    Args:
        models: of the repositories.
        policies: what holds for each.
        warnings: findings of the audit that do not stop a start.
        is_locked: whether a lock file was there, and right.
        installation: what will run.
        arguments: further flags of tritonserver.
        absent: flags of hardening that this release lacks.
        ports: of HTTP, gRPC and the metrics.
        secret: of the restricted APIs.
        envoy: what will run in front of it; None: nothing.
    """

    models: tuple[ServedModel, ...]
    policies: dict[str, ModelPolicy]
    warnings: tuple[Finding, ...]
    is_locked: bool
    installation: TritonInstallation
    arguments: tuple[str, ...]
    absent: tuple[HardenedFlag, ...]
    ports: tuple[int, int, int]
    secret: str
    envoy: EnvoyInstallation | None = None


class Service:
    """A tritonserver under every ring.

    Use it in a ``with`` statement, or call :meth:`start`, :meth:`run` and :meth:`stop`.

    Args:
        repositories: model repositories, served together.
        policy: the operator's.
        protect: serve every unmodified model under the SDK's checks, as ``protect = true`` does for one.
        gateway: Envoy in front of it, as the policy's ``[gateway]`` says; Triton then listens on loopback alone.
        flags: further flags of tritonserver, as typed.
        allow_failed: start although models failed to load.
        on_step: told what is being done.
        on_progress: called about twenty times a second while the server starts.
        on_log: told whole lines of the server's log and the gateway's, from the threads that copy them; it must be
            quick.

    Does not cover:
        Models of other backends than Python's: they run in tritonserver's own process, unconfined.
    """

    def __init__(
        self,
        repositories: Sequence[Path | str],
        policy: OperatorPolicy,
        *,
        protect: bool = False,
        gateway: bool = False,
        flags: Sequence[str] = (),
        allow_failed: bool = False,
        on_step: Callable[[str], None] = lambda _: None,
        on_progress: Callable[[StartProgress], None] | None = None,
        on_log: Callable[[bytes], None] | None = None,
    ) -> None:
        self._repositories = tuple(Path(path).expanduser().absolute() for path in repositories)
        self._policy = policy
        self._protect = protect
        self._has_gateway = gateway
        self._flags = tuple(flags)
        self._allow_failed = allow_failed
        self._on_step = on_step
        self._on_progress = on_progress
        self._on_log = on_log if on_log is None else whole_lines(on_log)
        self._on_gateway_log = () if on_log is None else (whole_lines(on_log),)
        self.protected: tuple[str, ...] = ()
        """Models that are served under ``protect``."""
        self.server: TritonServer | None = None
        self.supervisor: Supervisor | None = None
        self.preparation: Preparation | None = None
        self.gateway: Gateway | None = None

    def prepare(self) -> Preparation:
        """Look at everything that can be wrong before anything is started.

        Raises:
            SafeTritonError: ``server.repository`` no such folder; ``server.audit`` errors in the repository;
                ``server.lock`` it is not what its lock file says, or has none where the policy names a signer;
                ``lock.signature`` and ``lock.signing`` the lock's signature; ``server.flag``; ``policy.…``; and what
                :func:`safe_triton.server.locate` and :func:`safe_triton.server.served.read_models` raise.
        """
        repositories = tuple(path.resolve() for path in self._repositories)
        check_repositories(repositories, None)
        self._on_step("checking the repository")
        warnings = _audit(repositories, self._policy)
        is_locked = check_locks(repositories, self._policy.audit.signature)
        models = read_models(repositories)
        policies = effective_policies(self._policy, models)
        check_enforceable({model.name: policies[model.name].sandbox for model in models if model.is_python}, probe())
        _check_health_port(self._policy.server)
        envoy = self._checked_gateway(models) if self._has_gateway else None
        self._on_step("looking for tritonserver")
        installation = locate()
        models = tuple(with_backend(model, installation.backend_directory.parent) for model in models)
        known = known_flags(installation)
        user = check_user_flags((*self._policy.server.flags, *self._flags), known)
        secret = secrets.token_hex(16)
        hardening = harden(known, secret, rate_limiter_resources(model.config for model in models))
        server = self._policy.server
        return Preparation(
            models=models,
            policies=policies,
            warnings=warnings,
            is_locked=is_locked,
            installation=installation,
            arguments=(LOG_TIMES, *hardening.arguments, *user.arguments),
            absent=hardening.absent,
            ports=(
                user.ports.get("--http-port", server.http_port),
                user.ports.get("--grpc-port", server.grpc_port),
                user.ports.get("--metrics-port", server.metrics_port),
            ),
            secret=secret,
            envoy=envoy,
        )

    def start(self) -> Self:
        """Prepare, start the server, and wait until its models are ready. Leaves nothing behind when it fails.

        Raises:
            SafeTritonError: see :meth:`prepare` and :meth:`safe_triton.server.TritonServer.start`; a health port that
                is taken is ``server.ports``.
        """
        self.preparation = ready = self.prepare()
        self.protected = self._protected(ready)
        self._on_step("starting tritonserver")
        settings = self._policy.server
        self.server = TritonServer(
            self._repositories,
            installation=ready.installation,
            confinement=self._policy,
            view=True,
            protect=self.protected,
            auto_complete=[name for name, policy in ready.policies.items() if policy.auto_complete],
            arguments=ready.arguments,
            headers={SECRET_HEADER: ready.secret},
            ports=ready.ports,
            address=settings.address,
            poll_s=settings.repository_poll_s,
            ready_timeout_s=settings.ready_timeout_s,
            load_timeout_s=self._policy.supervision.load_timeout_s,
            stop_timeout_s=settings.stop_timeout_s,
            allow_failed_models=self._allow_failed,
            on_progress=self._on_progress,
            on_log=self._on_log,
        )
        try:
            _start(self.server)
            _write_admin_file(self.admin_file, ready.secret)
            self.supervisor = _supervisor(self.server, self._policy)
            if ready.envoy is not None:
                self._on_step("starting the gateway")
                self.gateway = self._started_gateway(ready, ready.envoy, self.server, self.supervisor)
        except BaseException:
            if self.supervisor is not None:
                self.supervisor.close()
            self.server.stop(within_s=0.5)
            raise
        return self

    @property
    def admin_file(self) -> Path:
        """A file, readable by this user alone, with the headers that open the restricted APIs."""
        if self.server is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self.server.log.parent / ADMIN_FILE

    def running(self) -> tuple[Preparation, TritonServer, Supervisor]:
        """What runs.

        Raises:
            ServerStartError: ``server.stopped``.
        """
        if self.preparation is None or self.server is None or self.supervisor is None:
            raise ServerStartError("the server is not running", reason="server.stopped")
        return self.preparation, self.server, self.supervisor

    def run(self, stop: threading.Event) -> None:
        """Supervise until ``stop`` is set."""
        self.running()[2].run(stop)

    def reload(self) -> None:
        """Read the policy again and take over what changed in the repositories; from any thread or signal handler."""
        self.running()[2].reload()

    def enforcement_gaps(self) -> Mapping[str, tuple[str, ...]]:
        """What does not hold although it was asked for, by model, as the launcher wrote it into the log."""
        hints = LogHints(lambda: None)
        _, server, _ = self.running()
        hints.feed(server.log_text().encode())
        models = {stub.instance: stub.model for stub in server.stubs()}
        return {models[instance]: found for instance, found in hints.gaps.items() if instance in models}

    def checked(self) -> frozenset[str]:
        """Models whose class, as it runs, checks its requests and answers: the SDK's, or one that it protects."""
        _, server, _ = self.running()
        return frozenset(beat.model for beat in server.beats() if beat.watches_itself).union(self.protected)

    def unchecked_limits(self) -> dict[str, tuple[str, ...]]:
        """What somebody declared about requests and answers of a model whose class nothing checks, by model.

        Does not cover:
            Models that have not loaded, and classes that write false heartbeats.
        """
        ready, server, _ = self.running()
        bare = sorted({beat.model for beat in server.beats()} - self.checked())
        found = {name: declared_limits(ready.policies[name].sources) for name in bare if name in ready.policies}
        return {name: keys for name, keys in found.items() if keys}

    def stop(self) -> None:
        """End the server and everything that it started, within seconds. May be repeated."""
        if self.gateway is not None:
            self.gateway.stop()
        if self.server is not None:
            self.server.stop(within_s=self._policy.server.stop_timeout_s + 0.5)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _checked_gateway(self, models: Sequence[ServedModel]) -> EnvoyInstallation:
        """Have Envoy check the policy before anything is started."""
        from safe_triton.server.envoy_binary import check_config, locate_envoy
        from safe_triton.server.gateway_files import gateway_of, plan_gateway

        settings = self._policy.server
        if not is_loopback(settings.address):
            raise ServerStartError(
                f"server.address = {settings.address!r} would let clients pass the gateway by: leave it out",
                reason="gateway.address",
            )
        self._on_step("checking the gateway")
        installation = locate_envoy()
        with _gateway_ports(gateway_of(self._policy)) as reserved:
            planned = plan_gateway(
                self._policy,
                models=[model.name for model in models],
                folder=Path(tempfile.gettempdir()),
                upstream=Upstream(address=settings.address),
                secret="",
                ports=(reserved.numbers[0], reserved.numbers[1]),
            )
        check_config(installation, planned.static)
        return installation

    def _started_gateway(
        self, ready: Preparation, envoy: EnvoyInstallation, server: TritonServer, supervisor: Supervisor
    ) -> Gateway:
        from safe_triton.server.gateway_files import gateway_of
        from safe_triton.supervision.gateway import Gateway

        urls = (server.http_url, server.grpc_url, supervisor.url, server.metrics_url)
        http_port, grpc_port, health_port, metrics_port = (int(url.rpartition(":")[2]) for url in urls)
        upstream = Upstream(
            address=self._policy.server.address,
            http_port=http_port,
            grpc_port=grpc_port,
            health_port=health_port,
            metrics_port=metrics_port,
        )
        with _gateway_ports(gateway_of(self._policy)) as reserved:
            gateway = Gateway(
                envoy,
                server.log.parent,
                upstream=upstream,
                secret=ready.secret,
                ports=(reserved.numbers[0], reserved.numbers[1]),
                supervision=self._policy.supervision,
                report=supervisor.report,
                listeners=self._on_gateway_log,
            )
            try:
                gateway.start(gateway.plan(self._policy, [model.name for model in ready.models]))
            except BaseException:
                gateway.stop()
                raise
        supervisor.attach(gateway)
        return gateway

    def _protected(self, ready: Preparation) -> tuple[str, ...]:
        """Models whose table asks for it; with ``--protect``, all whose table does not deny it."""

        def is_protected(policy: ModelPolicy) -> bool:
            return policy.protect or (self._protect and policy.sources.get("protect", DEFAULT) == DEFAULT)

        python = {model.name for model in ready.models if model.is_python}
        return tuple(name for name, policy in ready.policies.items() if name in python and is_protected(policy))


def declared_limits(sources: Mapping[str, str]) -> tuple[str, ...]:
    """Return the limits that are no defaults and that only the SDK checks; pure.

    Args:
        sources: of a model's policy. Its hard deadline is left out: the supervisor keeps it for every class.
    """
    kept_outside = {"limits.deadline_ms", "limits.hard_deadline_grace_ms"}
    return tuple(
        key
        for key, source in sources.items()
        if key.startswith("limits.") and source != DEFAULT and key not in kept_outside
    )


def check_enforceable(policies: Mapping[str, SandboxPolicy], capabilities: Capabilities) -> None:
    """Reject what this host cannot enforce, before a server would wait for models that refuse to load.

    Args:
        policies: of each model.
        capabilities: of this host.

    Raises:
        ConfinementError: the reason of the first essential gap, for the first model that requires it.
        ServerStartError: reason ``server.confinement``; a path that is granted is not there.
    """
    places = dict.fromkeys(PLACEHOLDERS, "/")
    for name, policy in policies.items():
        for field, paths in (("read", policy.read), ("write", policy.write)):
            for path in paths:
                if path.startswith("/") and not os.path.lexists(path):
                    raise ServerStartError(
                        f"model {name!r}: sandbox.{field}: {path} does not exist", reason="server.confinement"
                    )
        if policy.enforcement == "required":
            for gap in plan(policy.resolve(places), capabilities).gaps:
                if gap.is_essential:
                    raise ConfinementError(f"model {name!r}: {gap}", reason=gap.reason)


def _start(server: TritonServer) -> None:
    """Start it; where the confinement refused a model something, or a port is taken, say what to write."""
    try:
        server.start()
    except ServerStartError as error:
        if error.reason == "server.model":
            raise ServerStartError(advised(error.message), reason=error.reason) from None
        if error.reason == "server.ports":
            raise ServerStartError(f"{error.message}; {OTHER_PORTS}", reason=error.reason) from None
        raise


def _gateway_ports(gateway: GatewayPolicy) -> ReservedPorts:
    """The ports of requests and metrics, kept from other programs until Envoy has them."""
    wanted = (gateway.port, gateway.metrics_port)
    try:
        return ReservedPorts(wanted, (gateway.address, gateway.metrics_address))
    except OSError as error:
        raise ServerStartError(f"[gateway]: {error.filename}: {error.strerror}", reason="server.ports") from None


def _check_health_port(settings: ServerPolicy) -> None:
    """Reject a health port that the policy names and another program has."""
    if "health_port" in settings.model_fields_set:
        try:
            ReservedPorts((settings.health_port,)).release()
        except OSError as error:
            raise _port_taken(settings, error) from None


def _supervisor(server: TritonServer, policy: OperatorPolicy) -> Supervisor:
    """The supervisor; its port is any that is free where another program has the default one."""
    try:
        return Supervisor(server, policy)
    except OSError as error:
        if "health_port" not in policy.server.model_fields_set:
            return Supervisor(server, policy, health_port=0)
        raise _port_taken(policy.server, error) from None


def _port_taken(settings: ServerPolicy, error: OSError) -> ServerStartError:
    return ServerStartError(f"health_port {settings.health_port}: {error.strerror}", reason="server.ports")


def _audit(repositories: Sequence[Path], policy: OperatorPolicy) -> tuple[Finding, ...]:
    """Check the repositories; errors stop a start, everything else is returned.

    Only the policy accepts findings here: a comment would be the word of the model that is checked. The worst
    come first.
    """
    from safe_triton.audit.engine import check_paths
    from safe_triton.audit.finding import Level
    from safe_triton.audit.rules.table import level_of

    report = check_paths(repositories, policy=policy, fail_on=Level.ERROR, heeds_comments=False)
    errors = [finding for finding in report.findings if level_of(finding) >= Level.ERROR]
    if errors:
        first = errors[0]
        more = f" (and {len(errors) - 1} more errors; safe-triton check shows them)" if errors[1:] else ""
        where = f"{first.path}:{first.line}" if first.line else first.path
        raise ServerStartError(f"{where}: {first.rule}: {first.message}{more}", reason="server.audit")
    rest = (finding for finding in report.findings if level_of(finding) < Level.ERROR)
    return tuple(sorted(rest, key=level_of, reverse=True))


def _write_admin_file(path: Path, secret: str) -> None:
    path.touch(mode=0o600)
    path.write_text(f"{SECRET_HEADER}: {secret}\n{GRPC_HEADER_PREFIX}{SECRET_HEADER}: {secret}\n", encoding="utf-8")
