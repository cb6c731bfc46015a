"""The supervisor: watches a running server's processes, has what dies served again, and says how things are."""

from __future__ import annotations

import logging
import math
import os
import secrets
import time
from typing import TYPE_CHECKING

from safe_triton.errors import ModelLoadError, SafeTritonError
from safe_triton.policy.limits import Limits
from safe_triton.server.stubs import collect_orphans, exit_status, read_own_memory, read_times
from safe_triton.server.workspace import SHARED_MEMORY
from safe_triton.supervision.causes import Cause, OomCounter, cause_of
from safe_triton.supervision.endpoint import HealthEndpoint
from safe_triton.supervision.fleet import Fleet
from safe_triton.supervision.hands import ServerHands
from safe_triton.supervision.hangs import HangWatch
from safe_triton.supervision.log_hints import LogHints
from safe_triton.supervision.notify import notify, watchdog_interval_s
from safe_triton.supervision.observed import Observer
from safe_triton.supervision.regions import DeadRegions
from safe_triton.supervision.reloads import changed_policies, needs_start
from safe_triton.supervision.server_state import Answers, ServerDied, Stuck, TooLarge
from safe_triton.supervision.session import Session, refresh_session, remove_session, write_session
from safe_triton.supervision.state import Asked, Changed, Died, Hung, Loaded, LoadFailed, Phase, Started
from safe_triton.supervision.uncollected import Uncollected
from safe_triton.supervision.watch import ProcessWatch

if TYPE_CHECKING:
    import threading
    from collections.abc import Mapping
    from typing import Any

    from safe_triton.policyfile import OperatorPolicy
    from safe_triton.server import TritonServer
    from safe_triton.server.gateway_files import GatewayPlan
    from safe_triton.server.stubs import Stub
    from safe_triton.server.view import Changes
    from safe_triton.supervision.gateway import Gateway
    from safe_triton.supervision.snapshot import Snapshot

logger = logging.getLogger(__name__)

ROUND_S = 0.25
"""Longest wait: how late a request to stop may be noticed."""

SCAN_S = 5.0
"""Seconds between two looks for processes that nobody announced."""

LOADING_SCAN_S = 0.25
"""The same while a model is being loaded."""

STARTING_SCAN_S = 0.03
"""The same while Triton is about to start a process; even one that fails lives for a tenth of a second."""

SETTLED_S = 3.0
"""How long after a load its processes are looked for more often: what was never seen cannot be seen to end."""

INSIDE_FACTOR = 3
"""Memory of a model that lives in tritonserver itself, by the size of its files: weights, packed weights, buffers."""

STARTS_S = 1.5
"""How long a process that was found may still be about to read its entry file."""

RELOAD_WAIT_S = 5.0
"""How long a reload waits at most for processes that start, of loads that Triton is about to begin too."""

SESSION_S = 3600.0
"""Between two new dates of the session's file."""

STUCK_S = 15.0
"""Time of one round after which the supervision counts as stuck."""


class Supervisor:
    """Keeps a server's models serving.

    Args:
        server: started, with a view.
        policy: the operator's; ``supervision`` says when to try again, each model's limits when it hangs.
        health_port: of the health endpoint on 127.0.0.1; None: the policy's; 0: any that is free.

    Raises:
        OSError: the health endpoint's port is taken.

    Does not cover:
        Models of other backends, which live in tritonserver's own process. Hangs of models that write false heartbeats.
    """

    def __init__(self, server: TritonServer, policy: OperatorPolicy, *, health_port: int | None = None) -> None:
        self._server = server
        self._policy = policy
        self._watch = ProcessWatch()
        self._hints = LogHints(self._watch.wake)
        self._hands = ServerHands(server, self._watch)
        self._fleet = Fleet(self._hands, policy.supervision, time.monotonic)
        self._fleet.add(server.view.models)  # before anybody can ask: without models, all of them would serve
        self._hangs = HangWatch(self._hard_deadline_s)
        self._deadlines: dict[str, float | None] = {}
        self._python: set[str] = set()
        self._allowed_bytes = 0  # of tritonserver itself
        self._stubs: dict[int, Stub] = {}
        self._uncollected = Uncollected()
        self._regions = DeadRegions()
        self._ended: list[int] = []
        self._server_pid = 0
        self._unconfirmed: set[str] = set()  # models of a server that has just started: its index tells the truth
        self._oom = OomCounter()
        self._last_scan_s = self._next_look_s = self._next_watchdog_s = self._next_refresh_s = 0.0
        self._last_round_s = time.monotonic()
        self._reloads = False
        self._reload_by_s = math.inf
        self._last_start_s = -math.inf  # of a model's process
        self._gateway: Gateway | None = None
        self._gateway_pid = 0
        self._observer = Observer(server, self._fleet, self._hints, self._stubs)
        self._token = secrets.token_urlsafe(24)
        self._endpoint = HealthEndpoint(
            policy.server.health_port if health_port is None else health_port,
            token=self._token,
            is_alive=self.is_alive,
            snapshot=self.snapshot,
        )

    # -- what callers need -------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """Address of the health endpoint."""
        return self._endpoint.url

    def snapshot(self) -> Snapshot:
        """How things are; from any thread."""
        return self._observer.snapshot()

    def is_alive(self) -> bool:
        """Whether the supervision goes round; from any thread."""
        return time.monotonic() - self._last_round_s < STUCK_S

    def attach(self, gateway: Gateway) -> None:
        """Supervise a gateway that runs, too; before :meth:`run`."""
        self._gateway = gateway
        self._observer.gateway = gateway.row

    def report(self, message: str, fields: Mapping[str, Any]) -> None:
        """Write one line to the server's log."""
        self._hands.report(message, fields)

    def reload(self) -> None:
        """Read the policy again and take over what changed in the repositories; from any thread or signal handler."""
        self._reloads = True
        self._watch.wake()

    def close(self) -> None:
        """Close the health endpoint; for a supervisor that does not run."""
        self._endpoint.close()
        self._watch.close()

    def run(self, stop: threading.Event) -> None:
        """Supervise until ``stop`` is set, then let go of everything but the server itself.

        Processes that would not end by themselves are killed on the way, so that the server can be stopped in time.
        """
        session = None
        try:
            session = write_session(
                Session(os.getpid(), self.url, self._token, tuple(map(str, self._server.repositories)))
            )
        except OSError as error:
            logger.warning("safe-triton status will need --url: %s", error)
        self._hints.feed(self._server.log_text().encode())  # how the processes that run already were confined
        self._hints.take_loaded()
        self._server.listen(self._hints.feed)
        interval_s = watchdog_interval_s()
        try:
            self._take_over()
            notify(f"READY=1\nSTATUS={len(self._fleet.models)} models")
            while not stop.is_set():
                self._round_safely()
                if session is not None and self._last_round_s >= self._next_refresh_s:
                    refresh_session(session)
                    self._next_refresh_s = self._last_round_s + SESSION_S
                if interval_s is not None and self._last_round_s >= self._next_watchdog_s:
                    notify("WATCHDOG=1")
                    self._next_watchdog_s = self._last_round_s + interval_s
        finally:
            notify("STOPPING=1")
            self._kill_unwilling()
            self._regions.clear()
            self.close()
            if session is not None:
                remove_session(session)

    # -- one round -----------------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        self._unconfirmed = set(self._server.view.models)
        self._read_limits()
        self._watch_server()
        self._scan()
        self._confirm()

    def _round_safely(self) -> None:
        """One round; whatever goes wrong in it, there is a next one."""
        try:
            self._round()
        except Exception as error:
            self._hands.report("a round of the supervision failed", {"detail": repr(error)})
            logger.debug("traceback", exc_info=True)
            time.sleep(ROUND_S)

    def _round(self) -> None:
        self._ended += self._watch.wait(0.0 if self._ended else self._timeout_s())
        now_s = self._last_round_s = time.monotonic()
        if self._reloads:
            self._reload_by_s = min(self._reload_by_s, now_s + RELOAD_WAIT_S)
            if now_s >= self._reload_by_s or not self._is_starting(now_s):
                self._reloads, self._reload_by_s = False, math.inf
                self._reload_now()
        if self._gateway is not None:
            self._look_at_gateway(self._gateway, now_s)
        if self._server_pid in self._ended:
            self._ended.clear()
            self._server_ended()
        while self._ended:
            pid = self._ended.pop()
            if self._server.is_alive():  # otherwise its models end because it did
                self._stub_ended(pid)
        if self._server.is_alive():
            loaded = self._hints.take_loaded()
            if loaded or now_s >= self._next_scan_s():
                self._scan()
            for name in loaded:
                if name in self._fleet.models and self._fleet.models[name].current:
                    self._fleet.apply(name, Loaded())
            if now_s >= self._next_look_s:
                self._look(now_s)
        self._fleet.tick()
        self._regions.tick(now_s, self._fleet.is_ready)
        if self._server.pid != self._server_pid:
            self._stubs.clear()
            self._regions.clear()
            self._uncollected.clear()
            self._watch_server()

    def _timeout_s(self) -> float:
        now_s = time.monotonic()
        dues = (self._fleet.due_s(), None if self._gateway is None else self._gateway.due_s())
        times = [now_s + ROUND_S, self._next_scan_s(), self._next_look_s, *(due for due in dues if due is not None)]
        return max(0.0, min(times) - now_s)

    def _watch_server(self) -> None:
        self._server_pid = self._server.pid
        if not self._watch.add(self._server_pid):
            self._server_ended()

    def _look_at_gateway(self, gateway: Gateway, now_s: float) -> None:
        """Take in that Envoy has ended; watch the new one."""
        if self._gateway_pid in self._ended:
            self._ended.remove(self._gateway_pid)
            gateway.ended()
        gateway.tick(now_s, self._policy.supervision)
        if gateway.pid != self._gateway_pid:
            self._gateway_pid = gateway.pid
            if not self._watch.add(gateway.pid):
                gateway.ended()

    def _server_ended(self) -> None:
        at_work = {beat.model for beat in self._server.beats() if beat.busy_since_s is not None}
        at_work |= {
            name for name, health in self._fleet.models.items() if health.phase is Phase.LOADING and health.current
        }
        status = self._server.exit_status()
        self._unconfirmed = set(self._fleet.models)
        self._fleet.apply_to_server(ServerDied(cause_of(status, is_oom=self._oom.has_grown()), frozenset(at_work)))

    def _stub_ended(self, pid: int) -> None:
        status = exit_status(pid)
        is_oom = status == -9 and self._oom.has_grown()
        stub = self._stubs.pop(pid, None)
        if stub is not None:
            if stub.region and all(other.region != stub.region for other in self._stubs.values()):
                self._regions.add(SHARED_MEMORY / stub.region, stub.model)
            health = self._fleet.models.get(stub.model)
            is_load = health is not None and health.phase is Phase.LOADING
            self._uncollected.add(pid, stub.model, time.monotonic(), is_load=is_load)
            self._fleet.apply(stub.model, Died(pid, cause_of(status, is_oom=is_oom)))

    def _scan(self) -> None:
        for stub in self._server.stubs():
            if stub.pid in self._stubs or not self._watch.add(stub.pid):
                continue
            times = read_times(stub.pid)
            if times is not None and times.started_ticks == stub.started_ticks:  # no later process with its number
                self._stubs[stub.pid] = stub
                self._last_start_s = time.monotonic()
                self._fleet.apply(stub.model, Started(stub.pid, stub.instance))
        self._last_scan_s = time.monotonic()

    def _is_starting(self, now_s: float) -> bool:
        """Whether a process starts or is about to: with its entry file moved away meanwhile, it would crash.

        Releases to 25.07 wait for such a process for ever, which ends the whole server; so a reload waits for it.
        """
        awaited = (self._fleet.models[name] for name in self._python & self._fleet.models.keys())
        is_awaited = any(
            health.phase is Phase.LOADING and not health.current and now_s - health.since_s < RELOAD_WAIT_S
            for health in awaited
        )
        return is_awaited or now_s - self._last_start_s < STARTS_S

    def _next_scan_s(self) -> float:
        loading = [health for health in self._fleet.models.values() if health.phase is Phase.LOADING]
        is_starting = any(not health.current for health in loading)
        settled_s = time.monotonic() - SETTLED_S
        is_new = any(health.since_s > settled_s for health in self._fleet.models.values())
        return self._last_scan_s + (STARTING_SCAN_S if is_starting else LOADING_SCAN_S if loading or is_new else SCAN_S)

    def _look(self, now_s: float) -> None:
        """Look at what nothing announces: memory, hangs, stopped processes, and whether a new server answers."""
        collect_orphans()
        if (held_bytes := read_own_memory(self._server_pid)) > self._allowed_bytes:
            self._fleet.apply_to_server(TooLarge(held_bytes, self._allowed_bytes))
        states = {pid: times.state for pid in tuple(self._stubs) if (times := read_times(pid)) is not None}
        hung = self._hangs.look_at_states(states, now_s)
        hung.update(self._hangs.look(self._server.beats(), now_s))
        for pid, cause in hung.items():
            if pid in self._stubs:
                self._fleet.apply(self._stubs[pid].model, Hung(pid, cause))
        awaited = [health for health in self._fleet.models.values() if health.phase is Phase.LOADING]
        if awaited := [health for health in awaited if not health.current]:
            first = min(awaited, key=lambda health: health.since_s)
            self._uncollected.look(self._server_pid, self._stubs, first.name, now_s)
        if (model := self._uncollected.stuck_model(now_s)) is not None:
            self._uncollected.clear()
            self._fleet.apply_to_server(Stuck(model))
        for name in self._python:
            health = self._fleet.models.get(name)
            is_ready = health is not None and health.phase is Phase.READY and now_s - health.since_s > SETTLED_S
            if is_ready and health is not None and not health.processes:
                self._fleet.apply(name, LoadFailed(Cause("unknown", "it has no process")))
        if self._unconfirmed:
            self._confirm()
        self._next_look_s = now_s + self._policy.supervision.hang_check_s

    def _confirm(self) -> None:
        """Take the models' states from the index of a server that has just started, and so has no older versions."""
        try:
            rows = {row.name: row for row in self._server.models()} if self._server.is_answering() else None
        except ModelLoadError:  # it ended meanwhile
            rows = None
        if rows is None:
            return
        self._fleet.apply_to_server(Answers())
        for name in tuple(self._unconfirmed):
            row = rows.get(name)
            if name not in self._fleet.models or self._fleet.models[name].is_withdrawn:
                self._unconfirmed.discard(name)
            elif row is not None and row.state == "READY":
                self._fleet.apply(name, Loaded())
                self._unconfirmed.discard(name)
            elif row is not None and row.state == "UNAVAILABLE" and name in self._python:
                self._fleet.apply(name, LoadFailed(Cause("load", row.reason.partition("\n")[0][:300])))
                self._unconfirmed.discard(name)

    # -- the rest ------------------------------------------------------------------------------------------------

    def _reload_now(self) -> None:
        from safe_triton.policyfile import load_policy

        notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
        try:
            policy = load_policy(self._policy.path) if self._policy.path else self._policy
            names = [model.name for model in self._server.view.look()]
            policy.check_models(names)
            planned = None if self._gateway is None else self._gateway.plan(policy, names)
            changes = self._server.refresh(policy)
        except (SafeTritonError, OSError) as error:
            text = error.message if isinstance(error, SafeTritonError) else f"{error.filename}: {error.strerror}"
            self._observer.reloads["refused"] += 1
            self._observer.refusal = text
            self._hands.report("not reloaded; everything stays as it was", {"detail": text})
        else:
            self._observer.reloads["taken"] += 1
            self._observer.refusal = ""
            self._take_over_changes(policy, changes)
            if self._gateway is not None and planned is not None:
                self._apply_to_gateway(self._gateway, planned)
        finally:
            notify("READY=1")

    def _take_over_changes(self, policy: OperatorPolicy, changes: Changes) -> None:
        """Follow the view; load again what something else holds for now, and at once what waits or is quarantined."""
        old, self._policy = self._policy, policy
        self._fleet.policy = policy.supervision
        self._fleet.remove(changes.removed)
        kept = [name for name in self._fleet.models if name not in changes.changed]
        self._fleet.add(changes.added)
        for name in changes.changed:
            self._fleet.apply(name, Changed())
        self._read_limits()
        self._unconfirmed |= {*changes.added, *(set(changes.changed) - self._python)}
        others = changed_policies(old, policy, self._python.intersection(kept))
        for name in kept:
            if name in others or self._fleet.models[name].phase in {Phase.WAITING, Phase.QUARANTINED}:
                self._fleet.apply(name, Asked())
        fields = {"added": changes.added, "changed": changes.changed, "removed": changes.removed}
        more = {"other_policy": sorted(others), "needs_a_start": needs_start(old, policy, kept)}
        self._hands.report("reloaded", {**fields, **{name: value for name, value in more.items() if value}})

    def _apply_to_gateway(self, gateway: Gateway, planned: GatewayPlan) -> None:
        try:
            gateway.apply(planned)
        except SafeTritonError as error:
            self._hands.report("the gateway keeps its old policy", {"detail": error.message})

    def _read_limits(self) -> None:
        from safe_triton.server.policies import effective_policies

        policies = effective_policies(self._policy, self._server.view.served)
        self._python = {model.name for model in self._server.view.served if model.is_python}
        self._fleet.inside = frozenset(self._server.view.models) - self._python
        self._deadlines = {name: hard_deadline_s(policy.limits) for name, policy in policies.items()}
        inside = sum(model.size_bytes for model in self._server.view.served if not model.is_python)
        self._allowed_bytes = self._policy.server.max_memory_bytes + INSIDE_FACTOR * inside

    def _hard_deadline_s(self, model: str) -> float | None:
        return self._deadlines.get(model)

    def _kill_unwilling(self) -> None:
        """Kill the processes that would use up the time to stop: those that load, hang or are stopped."""
        for health in self._fleet.models.values():
            for pid in health.processes if health.phase is Phase.LOADING else health.doomed:
                self._watch.kill(pid)


def hard_deadline_s(limits: Limits) -> float | None:
    """Return the seconds after which a call without progress hangs, or None: the operator has lifted the limit."""
    parts = (limits.deadline_ms, limits.hard_deadline_grace_ms)
    return (
        sum(part for part in parts if isinstance(part, int)) / 1000 if all(isinstance(p, int) for p in parts) else None
    )
