"""Dead processes of loads that tritonserver does not collect: it waits for them for ever and loads nothing more.

A process that ends before it has opened its shared memory, killed or ended by its launcher, is never missed by
releases to 25.07. One that ends later is collected within two seconds; one that has served may stay without harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from safe_triton.server.stubs import child_pids, read_times

if TYPE_CHECKING:
    from collections.abc import Container

UNCOLLECTED_S = 10.0
"""How long tritonserver may take to collect such a process."""


class _Dead(NamedTuple):
    model: str
    started_ticks: int
    since_s: float


class Uncollected:
    """The dead children of one tritonserver."""

    def __init__(self) -> None:
        self._of_loads: dict[int, _Dead] = {}
        self._others: set[int] = set()

    def clear(self) -> None:
        """Forget them: there is another server."""
        self._of_loads.clear()
        self._others.clear()

    def add(self, pid: int, model: str, now_s: float, *, is_load: bool) -> None:
        """Take in a process that has just ended, while its model was loaded or while it served."""
        times = read_times(pid)
        if is_load and times is not None:
            self._of_loads[pid] = _Dead(model, times.started_ticks, now_s)
        else:
            self._others.add(pid)

    def look(self, server_pid: int, running: Container[int], model: str, now_s: float) -> None:
        """Take in what ended before anybody saw it; a process of ``model``, which is about to be loaded."""
        children = set(child_pids(server_pid))
        self._others &= children
        for pid in children - self._others - self._of_loads.keys():
            times = read_times(pid) if pid not in running else None
            if times is not None and times.state == "Z":
                self._of_loads[pid] = _Dead(model, times.started_ticks, now_s)

    def stuck_model(self, now_s: float) -> str | None:
        """Return the model for whose process tritonserver waits in vain, or None."""
        for pid, dead in tuple(self._of_loads.items()):
            times = read_times(pid)
            if times is None or times.started_ticks != dead.started_ticks:
                del self._of_loads[pid]
            elif now_s - dead.since_s > UNCOLLECTED_S:
                return dead.model
        return None
