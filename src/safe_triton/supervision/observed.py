"""Looking at a supervised server for people and programs: memory, CPU, requests, answers. Only when somebody asks."""

from __future__ import annotations

import http.client
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from safe_triton.server.stubs import read_times
from safe_triton.supervision.advice import advised
from safe_triton.supervision.snapshot import GatewayRow, ModelRow, Snapshot, sums_by_model

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from safe_triton.server import TritonServer
    from safe_triton.server.stubs import Stub
    from safe_triton.supervision.causes import Cause
    from safe_triton.supervision.fleet import Fleet
    from safe_triton.supervision.log_hints import LogHints

KEPT_S = 0.5
"""How long one question to tritonserver serves everybody who asks."""

ANSWERED = ("nv_inference_request_success", "nv_inference_request_failure")
REFUSED = "safe_triton_refusals_total"


class Observer:
    """Takes snapshots.

    Args:
        server: that is supervised.
        fleet: the states.
        hints: with the enforcement gaps, and why models did not load.
        stubs: the processes, by pid.
    """

    def __init__(self, server: TritonServer, fleet: Fleet, hints: LogHints, stubs: Mapping[int, Stub]) -> None:
        self._server = server
        self._fleet = fleet
        self._hints = hints
        self._stubs = stubs
        self.gateway: Callable[[], GatewayRow | None] = lambda: None
        """How Envoy is; set when there is one."""
        self.reloads: Counter[str] = Counter()
        """How often the policy and the repositories were ``taken`` over anew, and ``refused``."""
        self.refusal = ""
        """Why the last time was refused; empty where it was not."""
        self._lock = threading.Lock()
        self._asked_s = float("-inf")
        self._answers = False
        self._metrics = ""
        self._cpu: dict[int, tuple[float, float]] = {}  # by pid: seconds of CPU, and when they were read

    def snapshot(self) -> Snapshot:
        """Return how things are now; what tritonserver was asked may be half a second old."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._asked_s > KEPT_S:
                self._answers = self._server.is_alive() and self._server.is_answering()
                self._metrics = _metrics(self._server.metrics_url) if self._answers else ""
                self._asked_s = now_s
            return self._look(now_s, self._metrics)

    def _look(self, now_s: float, metrics: str) -> Snapshot:
        requests: dict[str, float] = {}
        for family in ANSWERED:
            for model, count in sums_by_model(metrics, family).items():
                requests[model] = requests.get(model, 0.0) + count
        refusals = sums_by_model(metrics, REFUSED)
        used = {pid: self._usage(pid, now_s) for pid in tuple(self._stubs)}
        self._cpu = {pid: row for pid, row in self._cpu.items() if pid in used}
        fleet = self._fleet
        instances = {stub.instance: stub.model for stub in tuple(self._stubs.values())}
        reasons = self._hints.reasons
        rows = []
        for name, health in sorted(dict(fleet.models).items()):
            pids = tuple(pid for pid in health.processes if pid in used)
            rows.append(
                ModelRow(
                    model=name,
                    state=health.phase.value,
                    old_serves=health.old_serves,
                    pids=pids,
                    memory_bytes=sum(used[pid][0] for pid in pids),
                    cpu_percent=round(sum(used[pid][1] for pid in pids), 1),
                    cpu_s=round(sum(used[pid][2] for pid in pids), 2),
                    requests=round(requests.get(name, 0)) if metrics else None,
                    refusals=round(refusals.get(name, 0)) if metrics else None,
                    restarts={cause: n for (model, cause), n in tuple(fleet.restarts.items()) if model == name},
                    quarantines=fleet.quarantines[name],
                    last_cause=_described(health.last_cause, reasons.get(name, "")),
                    retry_s=None if health.due_s is None else round(max(0.0, health.due_s - now_s), 1),
                )
            )
        return Snapshot(
            server=fleet.server.phase.value,
            answers=self._answers and self._server.is_alive(),
            pid=self._server.pid,
            server_restarts=dict(fleet.server_restarts),
            enforcement_gaps={instances[name]: gaps for name, gaps in self._hints.gaps.items() if name in instances},
            models=tuple(rows),
            reloads=dict(self.reloads),
            reload_refusal=self.refusal,
            gateway=self.gateway(),
        )

    def _usage(self, pid: int, now_s: float) -> tuple[int, float, float]:
        """Memory in bytes, percent of a core since the last look, and seconds of a core since it started."""
        times = read_times(pid)
        if times is None:
            return 0, 0.0, 0.0
        cpu_s, at_s = self._cpu.get(pid, (times.cpu_s, now_s))
        self._cpu[pid] = (times.cpu_s, now_s)
        percent = 100 * (times.cpu_s - cpu_s) / (now_s - at_s) if now_s > at_s else 0.0
        return times.memory_bytes, percent, times.cpu_s


def _described(cause: Cause | None, reason: str) -> str:
    """A cause for the operator; of a load that failed, Triton's reason says more than how the process ended."""
    if cause is None:
        return ""
    return advised(reason or cause.text) if cause.kind == "load" else cause.text


def _metrics(url: str) -> str:
    """What tritonserver's metrics say; empty where they are off."""
    host, _, port = url.rpartition(":")
    connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=2.0)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
