"""Carrying counters to Triton's ``/metrics``: once a second from a thread, never from a request.

Each call into Triton takes 40 to 120 microseconds, and a refused one (a negative increment) can abort the
server: only positive differences are sent.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from safe_triton.runtime._pb import Backend
from safe_triton.runtime.log import ModelLogger
from safe_triton.runtime.stats import Stats

FLUSH_INTERVAL_S = 1.0

HOLD_S = 0.5
"""How long the end of a process waits for a flush, which takes about a millisecond."""

FAMILIES = {
    "safe_triton_requests_total": "Requests by outcome",
    "safe_triton_refusals_total": "Refused requests by reason",
    "safe_triton_output_warnings_total": "Outputs passed although they break config.pbtxt, by reason",
    "safe_triton_violations_total": "Attempts of the model's code that the guard refused, by kind",
    "safe_triton_enforcement_gaps": "What is not enforced on the model's process, by mechanism",
    "safe_triton_bls_calls_total": "Calls to other models, by the called one",
    "safe_triton_bls_seconds_total": "Seconds that calls to other models took, by the called one",
    "safe_triton_sequences_total": "Sequences by what became of them: started, ended, restarted, expired",
    "safe_triton_execution_seconds_total": "Seconds in the author's code",
    "safe_triton_guard_seconds_total": "Seconds of checks and of building responses around the author's code",
}
"""Metric families by name, with the help text.

All are counters with the labels ``model``, ``version``, ``instance`` and ``process``; sum over the last two.
"""


class MetricsFlusher:
    """Sends what the counters have gained since the last time.

    Args:
        backend: Triton's Python backend.
        stats: the counters.
        labels: labels of every metric; ``process`` is added.
        logger: told once when the server has metrics switched off.
    """

    def __init__(self, backend: Backend, stats: Stats, labels: dict[str, str], logger: ModelLogger) -> None:
        self._backend = backend
        self._stats = stats
        # Two processes with equal labels would share one counter, which the first to end frees under the other: two
        # reloads under traffic were enough to stop tritonserver 2.51.0 for good. A process's number is its own.
        self._labels = {**labels, "process": str(os.getpid())}
        self._logger = logger
        self._families: dict[str, Any] = {}
        self._metrics: dict[tuple[str, str], Any] = {}
        self._sent: dict[tuple[str, str], float] = {}
        self._stop = threading.Event()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Register the families and start the thread; without metrics in this server, say so and do nothing."""
        try:
            family = self._backend.MetricFamily
            for name, description in FAMILIES.items():
                self._families[name] = family(name=name, description=description, kind=family.COUNTER)
        except Exception:
            self._families.clear()
            self._logger.info("metrics are off in this server; counters are not exported")
            return
        self._thread = threading.Thread(target=self._run, name="safe_triton-metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what is left, end the thread, and have Triton forget the counters: from Python 3.12 on, no exit does."""
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(timeout=2 * FLUSH_INTERVAL_S)
        self._thread = None
        self.flush()
        self._metrics.clear()
        self._families.clear()

    def flush(self) -> None:
        """Send every counter that has grown."""
        if self._families:
            with self._sending:
                self._send()

    def hold(self) -> None:
        """Wait for a flush that is under way, and let none begin: a process that ends within one may end the server."""
        self._sending.acquire(timeout=HOLD_S)

    def _send(self) -> None:
        for (name, label, value), total in self._totals().items():
            key = (name, value)
            gained = total - self._sent.get(key, 0)
            if gained > 0:
                if key not in self._metrics:
                    labels = {**self._labels, label: value} if label else self._labels
                    self._metrics[key] = self._families[name].Metric(labels=labels)
                self._metrics[key].increment(gained)
                self._sent[key] = total

    def _totals(self) -> dict[tuple[str, str, str], float]:
        stats = self._stats
        totals: dict[tuple[str, str, str], float] = {
            ("safe_triton_execution_seconds_total", "", ""): stats.execution_s,
            ("safe_triton_guard_seconds_total", "", ""): stats.guard_s,
        }
        for name, label, counts in (
            ("safe_triton_requests_total", "outcome", stats.outcomes),
            ("safe_triton_refusals_total", "reason", stats.refusals),
            ("safe_triton_output_warnings_total", "reason", stats.warnings),
            ("safe_triton_violations_total", "kind", stats.violations),
            ("safe_triton_enforcement_gaps", "mechanism", stats.gaps),
            ("safe_triton_sequences_total", "event", stats.sequences),
        ):
            for value, total in list(counts.items()):
                totals[name, label, value] = total
        for target, (calls, seconds) in list(stats.calls.items()):
            totals["safe_triton_bls_calls_total", "target", target] = calls
            totals["safe_triton_bls_seconds_total", "target", target] = seconds
        return totals

    def _run(self) -> None:
        while not self._stop.wait(FLUSH_INTERVAL_S):
            try:
                self.flush()
            except Exception:
                self._logger.warning("metrics could not be sent", exc_info=True)
                return
