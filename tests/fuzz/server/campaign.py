"""Many requests against one served repository, and what became of each."""

from __future__ import annotations

import contextlib
import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count

from tests.chaos.harness import Served
from tests.fuzz.server.models import is_right
from tests.fuzz.server.requests import Good, good, hostile
from tests.fuzz.server.scan import leaks, own_words
from tests.fuzz.server.wire import Got, GrpcWire, HttpWire, Sent, Wire, grpc_outputs, http_outputs

HEALED_S = 120.0
"""A good request is sent again for so long while its model, or the server, is being healed."""

NOTICED_S = 20.0
"""A closed connection without a new server within so long was closed for no good reason."""

GOOD_SHARE = 0.2
HEALING = {"refused", "closed", "hang", "500", "503", "INTERNAL", "UNAVAILABLE", "NOT_FOUND", "400", "INVALID_ARGUMENT"}
"""What a good request may get while something is being healed; Triton says 400 for a model that is not loaded."""


@dataclass
class Tally:
    """What became of all requests.

    Attributes:
        sent: requests by kind.
        outcomes: by protocol and outcome.
        good: good requests by what became of them: ``right``, ``right later``, ``wrong``.
        deaths: of tritonserver, by its pid: the numbers of the requests that were on their way.
        problems: everything that may not happen, each with the number of its request.
        slowest_s: the longest wait for an answer.
    """

    sent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    deaths: dict[int, list[int]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, other: Tally) -> None:
        """Add what another thread saw."""
        for name in ("sent", "outcomes", "good"):
            getattr(self, name).update(getattr(other, name))
        for pid, numbers in other.deaths.items():
            self.deaths.setdefault(pid, []).extend(numbers)
        self.problems += other.problems
        self.slowest_s = max(self.slowest_s, other.slowest_s)


@dataclass
class Campaign:
    """Send requests from several threads until there were enough.

    Args:
        served: the server.
        seed: of the first request; request ``n`` is a function of ``seed`` and ``n``.
        requests: how many.
    """

    served: Served
    seed: int
    requests: int
    done: int = 0

    def run(self, threads: int) -> Tally:
        """Send all."""
        numbers, words = count(), own_words()

        def work(_: int) -> Tally:
            with contextlib.closing(Sender(self.served, words)) as sender:
                while (number := next(numbers)) < self.requests:
                    sender.send_one(self.seed, number)
                    self.done = max(self.done, number)
                return sender.tally

        tally = Tally()
        with ThreadPoolExecutor(threads) as pool:
            for seen in pool.map(work, range(threads)):
                tally.add(seen)
        return tally


class Sender:
    """One thread's connections, and what it saw."""

    def __init__(self, served: Served, words: tuple[bytes, ...], protocols: Sequence[str] = ("http", "grpc")) -> None:
        self._wires: dict[str, Wire] = {
            "http": HttpWire(served.address("HTTP")),
            "grpc": GrpcWire(served.address("gRPC")),
        }
        self._served = served
        self._words = words
        self._protocols = protocols
        self._pid: int = served.snapshot()["pid"]
        self.tally = Tally()

    def send_one(self, seed: int, number: int) -> None:
        """Send the request of one number and judge its outcome."""
        rng = random.Random(f"{seed}:{number}")
        protocol = rng.choice(self._protocols)
        if rng.random() < GOOD_SHARE:
            self._send_good(good(rng, protocol), number)
        else:
            self._send_hostile(hostile(rng, protocol), number)

    def close(self) -> None:
        """End all connections."""
        for wire in self._wires.values():
            wire.close()

    def _send(self, sent: Sent, number: int) -> Got:
        began_s = time.monotonic()
        got = self._wires[sent.protocol].send(sent)
        self.tally.slowest_s = max(self.tally.slowest_s, time.monotonic() - began_s)
        self.tally.sent[sent.kind] += 1
        self.tally.outcomes[f"{sent.protocol} {got.outcome}"] += 1
        for leak in leaks(got.answer, sent.everything(), self._words):
            self.tally.problems.append(f"{number}: {sent.kind}: leaks {leak!r} in {got.answer[-300:]!r}")
        return got

    def _send_hostile(self, sent: Sent, number: int) -> None:
        got = self._send(sent, number)
        if got.outcome == "hang" or (got.outcome == "closed" and not sent.is_short and not self._has_died(number)):
            self.tally.problems.append(f"{number}: {sent.kind}: {got.outcome}: {sent}"[:600])

    def _has_died(self, number: int) -> bool:
        """Tell whether tritonserver ended since the last time, which is why a connection ended."""
        before = self._pid
        deadline_s = time.monotonic() + NOTICED_S
        while self._pid == before and time.monotonic() < deadline_s:
            self._pid = self._served.snapshot()["pid"] or before
            time.sleep(0.1)
        if self._pid != before:
            self.tally.deaths.setdefault(before, []).append(number)
        return self._pid != before

    def _send_good(self, request: Good, number: int) -> None:
        began_s = time.monotonic()
        became = "right"
        while True:
            got = self._send(request.sent, number)
            problem = _problem(request, got)
            if not problem:
                self.tally.good[became] += 1
                return
            became = "right later"
            if got.outcome not in HEALING or time.monotonic() - began_s > HEALED_S:
                self.tally.good["wrong"] += 1
                self.tally.problems.append(f"{number}: good: {problem}: {got.answer[-300:]!r}")
                return
            time.sleep(0.1)


def _problem(request: Good, got: Got) -> str:
    """What is wrong with the answer to a good request; empty for nothing."""
    if got.outcome not in {"200", "OK"}:
        return got.outcome
    try:
        outputs = grpc_outputs(got.answer) if request.sent.protocol == "grpc" else http_outputs(got)
    except (ValueError, KeyError, TypeError) as error:
        return f"unreadable: {error}"
    return "" if is_right(request.model, request.inputs, outputs) else "another answer than the right one"
