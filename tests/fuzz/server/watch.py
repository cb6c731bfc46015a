"""Notices that tritonserver has ended, and which requests were on their way then."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from tests.chaos.harness import Served

LOST = frozenset({"", "closed", "hang", "502", "503", "UNAVAILABLE"})
"""What a request has come to, or comes to, whose server ends; through a gateway too."""

SHORTLY_S = 1.0
"""How long before or after its end was noticed connections of a server may close."""


@dataclass
class Flight:
    """One request: when it was sent, when it came to something, and to what."""

    number: int
    began_s: float
    ended_s: float = float("inf")
    outcome: str = ""


@dataclass
class Death:
    """One end of tritonserver: its pid, when it was noticed, and the numbers of the requests on their way."""

    pid: int
    at_s: float
    numbers: list[int]


def _comes(what: Callable[[], bool], within_s: float) -> bool:
    deadline_s = time.monotonic() + within_s
    while not (is_so := what()) and time.monotonic() < deadline_s:
        time.sleep(0.05)
    return is_so


@dataclass
class Watch:
    """Follows one server's tritonserver from one process to the next."""

    served: Served
    deaths: list[Death] = field(default_factory=list)
    _flights: dict[int, deque[Flight]] = field(default_factory=dict)
    _over: threading.Event = field(default_factory=threading.Event)
    _pid: int = 0
    _ends: int = 0

    def send(self, number: int) -> Flight:
        """Note that the calling thread sends a request."""
        flight = Flight(number, time.monotonic())
        self._flights.setdefault(threading.get_ident(), deque(maxlen=8)).append(flight)
        return flight

    def has_died_since(self, began_s: float, *, within_s: float) -> bool:
        """Wait until it is known that tritonserver has ended since shortly before a moment, or has not."""
        return _comes(lambda: any(death.at_s >= began_s - SHORTLY_S for death in self.deaths), within_s)

    def has_more_deaths(self, before: int, *, within_s: float) -> bool:
        """Wait until there are more than before, or it is known that there are not."""
        return _comes(lambda: len(self.deaths) > before, within_s)

    @contextlib.contextmanager
    def running(self) -> Iterator[Watch]:
        """Watch until the block ends."""
        while not self._pid:
            self._pid, self._ends = self._current()
        thread = threading.Thread(target=self._run, daemon=True)
        thread.start()
        try:
            yield self
            assert thread.is_alive(), "nobody watched"
        finally:
            self._over.set()
            thread.join(timeout=60)

    def _run(self) -> None:
        while not self._over.is_set():
            self._wait_for_end(self._pid)
            if self._over.is_set():
                return
            self.deaths.append(Death(self._pid, time.monotonic(), self._lost()))
            while not self._over.wait(0.05):
                pid, ends = self._current()
                if pid not in {0, self._pid}:
                    self._catch_up(pid, ends)
                    break

    def _catch_up(self, pid: int, ends: int) -> None:
        """Follow a new process; one that ended before it was seen has ended too."""
        missed = ends - self._ends - 1
        self.deaths += [Death(0, time.monotonic(), self._lost()) for _ in range(missed)]
        self._pid, self._ends = pid, ends

    def _wait_for_end(self, pid: int) -> None:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            while not self._over.is_set() and not select.select([descriptor], [], [], 0.2)[0]:
                pass
        finally:
            os.close(descriptor)

    def _lost(self) -> list[int]:
        since_s = time.monotonic() - SHORTLY_S
        flights = [flight for own in tuple(self._flights.values()) for flight in tuple(own)]
        return sorted({flight.number for flight in flights if flight.ended_s > since_s and flight.outcome in LOST})

    def _current(self) -> tuple[int, int]:
        """The process, 0 where there is none, and how many have ended so far."""
        try:
            snapshot = self.served.snapshot()
        except (OSError, ValueError):
            return 0, 0
        return int(snapshot["pid"] or 0), sum(snapshot["server_restarts"].values())
