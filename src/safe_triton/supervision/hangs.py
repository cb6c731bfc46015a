"""Which processes hang, by evidence: busy for longer than the hard deadline, and nothing came out meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from safe_triton.supervision.causes import Cause

if TYPE_CHECKING:
    from safe_triton.server.heartbeat import Beat

OWN_WATCHDOG_S = 0.4
"""How much later than a model's own watchdog the supervisor acts."""

STOPPED_FOR_S = 1.0
"""How long a process may be stopped by a signal; nobody but an operator or an attacker stops one."""


class HangWatch:
    """Compares heartbeats with earlier ones.

    Args:
        hard_deadline_s: of a model, by name; None: it has none.

    Does not cover:
        A process whose model writes a false heartbeat.
    """

    def __init__(self, hard_deadline_s: Callable[[str], float | None]) -> None:
        self._hard_deadline_s = hard_deadline_s
        self._progress: dict[int, tuple[int, float]] = {}
        self._stopped_since_s: dict[int, float] = {}

    def look(self, beats: Iterable[Beat], now_s: float) -> dict[int, Cause]:
        """Return the processes that hang now.

        Args:
            beats: of all processes.
            now_s: on the clock of :func:`time.monotonic`, as the beats.
        """
        hung = {}
        seen: dict[int, tuple[int, float]] = {}
        for beat in beats:
            # Of a process that is new here, only one that has brought nothing forth yet is known to have been silent.
            count, since_s = self._progress.get(beat.pid, (0, 0.0 if beat.progress == 0 else now_s))
            if count != beat.progress or beat.busy_since_s is None:
                since_s = now_s
            seen[beat.pid] = (beat.progress, since_s)
            if beat.busy_since_s is None:
                continue
            silent_s = now_s - max(since_s, beat.busy_since_s)  # a call that began since then has its whole time
            limit_s = self._hard_deadline_s(beat.model)
            if beat.watches_itself:
                # Its deadlines may be longer than the operator's defaults; it acts first, where it can act at all.
                limit_s = None if beat.hard_deadline_s is None else beat.hard_deadline_s + OWN_WATCHDOG_S
            if limit_s is not None and silent_s > limit_s:
                text = f"busy for {silent_s:.1f} s without a response, allowed {limit_s:g} s"
                hung[beat.pid] = Cause("deadline", text)
        self._progress = seen
        return hung

    def look_at_states(self, states: Mapping[int, str], now_s: float) -> dict[int, Cause]:
        """Return the processes that a signal has stopped for too long.

        Args:
            states: the letter of proc_pid_stat(5) by pid.
            now_s: seconds of any clock that only goes forward.
        """
        self._stopped_since_s = {
            pid: self._stopped_since_s.get(pid, now_s) for pid, state in states.items() if state == "T"
        }
        return {
            pid: Cause("stopped", "stopped by a signal")
            for pid, since_s in self._stopped_since_s.items()
            if now_s - since_s >= STOPPED_FOR_S
        }
