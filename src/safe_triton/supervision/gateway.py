"""Envoy in front of a server: started, watched and started again; its files follow the policy and what that names."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safe_triton.confinement.gateway_launch import CONFINED
from safe_triton.errors import SafeTritonError, ServerStartError
from safe_triton.server.envoy import Envoy
from safe_triton.server.envoy_binary import check_config
from safe_triton.server.gateway_files import GatewayPlan, fingerprint, plan_gateway
from safe_triton.server.log import ServerLog
from safe_triton.server.log_pipe import LogPipe
from safe_triton.server.ports import reachable
from safe_triton.supervision.causes import Cause, cause_of
from safe_triton.supervision.server_state import (
    Answers,
    KillServer,
    ServerDied,
    ServerFailed,
    ServerHealth,
    ServerTick,
    Start,
    server_step,
)
from safe_triton.supervision.snapshot import GatewayRow
from safe_triton.supervision.state import Phase

if TYPE_CHECKING:
    from safe_triton.policyfile import GatewayPolicy, OperatorPolicy, SupervisionPolicy
    from safe_triton.policyfile.gateway_tables import Upstream
    from safe_triton.server.envoy_binary import EnvoyInstallation

READY_S = 60.0
"""For Envoy to start: half a second on a quiet machine."""

LOOK_S = 1.0
"""Between two looks at whether it answers, and at the files that its policy names."""

HUNG_S = 15.0
"""How long it may not answer until it is ended and started again."""

ANSWER_S = 2.0

_HUNG = Cause("deadline", f"it did not answer for {HUNG_S:g} s")

Report = Callable[[str, Mapping[str, Any]], None]


class Gateway:
    """One Envoy and what it is made from.

    Args:
        installation: what is run.
        workspace: the server's private folder.
        upstream: the Triton that it stands in front of.
        secret: of Triton's restricted APIs.
        ports: of requests and of metrics, free.
        supervision: when to start it again.
        report: writes one line to the log.
        listeners: told about each piece of what Envoy prints, the access log included.

    Does not cover:
        Connections while a dead Envoy is started again: they are refused for as long.
    """

    def __init__(
        self,
        installation: EnvoyInstallation,
        workspace: Path,
        *,
        upstream: Upstream,
        secret: str,
        ports: tuple[int, int],
        supervision: SupervisionPolicy,
        report: Report,
        listeners: Collection[Callable[[bytes], None]] = (),
    ) -> None:
        self._installation = installation
        self._folder = workspace / "gateway"
        self._folder.mkdir(mode=0o700)
        self._upstream = upstream
        self._secret = secret
        self._ports = ports
        self._supervision = supervision
        self._report = report
        self.log = ServerLog(workspace / "gateway.log")
        self._pipe = LogPipe(workspace, self.log, listeners)
        self._plan: GatewayPlan | None = None
        self._envoy: Envoy | None = None
        self._health = ServerHealth(phase=Phase.LOADING, since_s=time.monotonic())
        self._seen: tuple[object, ...] = ()
        self._tried: tuple[object, ...] = ()
        self._next_look_s = 0.0
        self._answered_s = time.monotonic()
        self.restarts: Counter[str] = Counter()
        """By kind of cause."""
        self.reloads: Counter[str] = Counter()
        """How often new files were ``taken`` and ``refused``."""

    # -- what callers need -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Where clients reach it from this machine."""
        policy = self._planned().gateway
        return f"{'http' if policy.plaintext else 'https'}://{reachable(policy.address)}:{self._ports[0]}"

    @property
    def metrics_url(self) -> str:
        """``host:port`` of its metrics; the path is ``/metrics``."""
        return f"{reachable(self._planned().gateway.metrics_address)}:{self._ports[1]}"

    @property
    def pid(self) -> int:
        """Process id of Envoy."""
        return self._running().pid

    @property
    def policy(self) -> GatewayPolicy:
        """What it enforces now."""
        return self._planned().gateway

    def enforcement_gaps(self) -> tuple[str, ...]:
        """What does not hold on Envoy's process, as its launcher wrote it into the log."""
        for line in self.log.text().splitlines():
            if line.startswith("{") and (fields := json.loads(line)).get("message") == CONFINED:
                return tuple(fields["gaps"])
        return ()

    def row(self) -> GatewayRow:
        """How it is; from any thread."""
        health = self._health
        return GatewayRow(
            state=health.phase.value,
            url=self.url,
            pid=self.pid,
            restarts=dict(self.restarts),
            reloads=dict(self.reloads),
            last_cause="" if health.last_cause is None else health.last_cause.text,
        )

    def plan(self, policy: OperatorPolicy, models: Collection[str]) -> GatewayPlan:
        """Compile a policy and have Envoy check it; what runs does not change.

        Args:
            policy: the operator's.
            models: that are served.

        Raises:
            SafeTritonError: what is wrong with it, or with a file that it names; ``gateway.restart``: it changes what
                holds for an Envoy's whole life.
        """
        try:
            planned = plan_gateway(
                policy,
                models=models,
                folder=self._folder,
                upstream=self._upstream,
                secret=self._secret,
                ports=self._ports,
            )
            if self._plan is not None and (changed := planned.fixed_differences(self._plan)):
                raise ServerStartError(
                    f"[gateway]: {', '.join(changed)} changed, which a running gateway cannot; start the server anew",
                    reason="gateway.restart",
                )
            check_config(self._installation, planned.static)
        except SafeTritonError:
            self.reloads["refused"] += self._plan is not None
            raise
        return planned

    def start(self, planned: GatewayPlan) -> None:
        """Start Envoy and wait until it serves.

        Raises:
            ServerStartError: reason ``gateway.start``; it ended or was not ready in time.
        """
        self._take(planned)
        envoy = Envoy(self._installation, self._folder, output=self._pipe.writer, grants=planned.grants)
        self._envoy = envoy
        try:
            envoy.start(planned.texts)
            until_s = time.monotonic() + READY_S
            while not envoy.is_ready():
                if envoy.exit_status() is not None or time.monotonic() > until_s:
                    raise ServerStartError(f"Envoy did not start: {self._last_line()}", reason="gateway.start")
                time.sleep(0.02)
        except OSError as error:
            raise ServerStartError(f"Envoy did not start: {error}", reason="gateway.start") from None
        self._health = ServerHealth(since_s=time.monotonic())

    def apply(self, planned: GatewayPlan) -> None:
        """Have the running Envoy take a plan over.

        Raises:
            ServerStartError: see :meth:`safe_triton.server.envoy.Envoy.replace`; it keeps what it had.
        """
        try:
            is_new = self._running().replace(planned.texts)
        except OSError as error:
            self.reloads["refused"] += 1
            raise ServerStartError(f"the gateway's files: {error}", reason="gateway.refused") from None
        except ServerStartError:
            self.reloads["refused"] += 1
            raise
        self.reloads["taken"] += is_new
        self._take(planned)

    def stop(self) -> None:
        """Let Envoy finish the requests in progress and end it. May be repeated."""
        if self._envoy is not None:
            self._envoy.stop()
        self._pipe.close()

    # -- what the supervision calls ----------------------------------------------------------------------------

    def ended(self) -> None:
        """Envoy's process has ended."""
        self._apply(ServerDied(cause_of(self._running().exit_status())))

    def tick(self, now_s: float, policy: SupervisionPolicy) -> None:
        """Look at it, and let time pass."""
        self._supervision = policy
        self._apply(ServerTick())
        if now_s < self._next_look_s:
            return
        self._next_look_s = now_s + LOOK_S
        if self._health.phase is not Phase.WAITING:
            self._look(now_s)
        if self._health.phase is Phase.READY:
            self._look_at_files()

    def due_s(self) -> float | None:
        """When it has to be started again, or None."""
        return self._health.due_s

    def _look(self, now_s: float) -> None:
        envoy = self._running()
        if envoy.admin.is_live(timeout_s=ANSWER_S):
            self._answered_s = now_s
            if self._health.phase is Phase.LOADING and envoy.is_ready():
                self._apply(Answers())
        elif self._health.phase is Phase.READY and now_s - self._answered_s > HUNG_S:
            self._answered_s = now_s
            self._report("gateway is ended", {"cause": _HUNG.kind, "detail": _HUNG.text})
            envoy.kill()

    def _look_at_files(self) -> None:
        """Take over certificates, keys and the like that were replaced, once they stay as they are."""
        planned = self._planned()
        found = fingerprint(planned.files)
        is_settled, self._seen = found == self._seen, found
        if found == self._tried or not is_settled:
            return
        self._tried = found
        try:
            self.apply(self.plan(planned.policy, planned.models))
        except SafeTritonError as error:
            self._report("gateway keeps what it has: its files changed and are not right", {"detail": error.message})
        else:
            changed = set(planned.seen) ^ set(self._planned().seen)
            files = {row if isinstance(row, str) else row[0] for row in changed}
            self._report("gateway took over changed files", {"files": sorted(files)})

    def _apply(self, event: ServerDied | Answers | ServerTick) -> None:
        now_s = time.monotonic()
        self._health, actions = server_step(self._health, event, now_s, self._supervision)
        for action in actions:
            if isinstance(action, ServerFailed):
                self.restarts[action.cause.kind] += 1
                fields = {"cause": action.cause.kind, "detail": action.cause.text, "retry_s": round(action.retry_s, 1)}
                self._report("gateway ended; it is started again", fields)
            elif isinstance(action, KillServer):
                self._running().kill()
            elif isinstance(action, Start):
                self._answered_s = now_s
                try:
                    self._running().restart()
                except OSError as error:
                    self._apply(ServerDied(Cause("exit", f"it could not be started: {error}")))

    def _take(self, planned: GatewayPlan) -> None:
        self._plan = planned
        self._seen = self._tried = planned.seen

    def _last_line(self) -> str:
        self.log.update()
        return self.log.last_line or "it printed nothing"

    def _planned(self) -> GatewayPlan:
        if self._plan is None:
            raise ServerStartError("the gateway is not running", reason="gateway.stopped")
        return self._plan

    def _running(self) -> Envoy:
        if self._envoy is None:
            raise ServerStartError("the gateway is not running", reason="gateway.stopped")
        return self._envoy
