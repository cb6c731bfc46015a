"""Many requests against one served repository, and what became of each."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

from tests.fuzz.server.answers import error_text, faults
from tests.fuzz.server.models import is_right
from tests.fuzz.server.requests import Good, good, hostile
from tests.fuzz.server.scan import leaks
from tests.fuzz.server.sites import Site
from tests.fuzz.server.tally import End, Tally
from tests.fuzz.server.watch import LOST, Death, Watch
from tests.fuzz.server.wire import Got, GrpcWire, HttpWire, Sent, Wire, grpc_outputs, http_outputs

HEALED_S = 120.0
"""A good request is sent again for so long while its model, or the server, is being healed."""

NOTICED_S = 60.0
"""A closed connection without a new server within so long was closed for no good reason."""

ALONE_S = 2.0
"""A request that was sent alone and got no answer has ended tritonserver by then, or has not."""

ANSWERED_S = 0.2
"""The same for one that got an answer."""

GOOD_SHARE = 0.2
HEALING = {"refused", "closed", "500", "503", "INTERNAL", "UNAVAILABLE", "NOT_FOUND", "400", "INVALID_ARGUMENT"}
"""What a good request may get while something is being healed; Triton says 400 for a model that is not loaded."""


OVERFILLED = re.compile(rb"batch size \d+ for .*, max allowed is \d+")
"""Triton's own: a request of batch 0 makes it compose a batch that it then refuses, with all who are in it."""


@dataclass
class Campaign:
    """Send requests from several threads until there were enough.

    Args:
        site: the server.
        seed: of the first request; request ``n`` is a function of ``seed`` and ``n``.
        requests: how many.
        words: that no answer may hold.

    Attributes:
        done: how many were sent so far.
        stage: what goes on once all were sent.
    """

    site: Site
    seed: int
    requests: int
    words: tuple[bytes, ...]
    done: int = 0
    stage: str = ""

    def run(self, threads: int) -> Tally:
        """Send all."""
        numbers, tally = count(), Tally()
        with Watch(self.site.served).running() as watch:

            def work(_: int) -> Tally:
                with contextlib.closing(Sender(self.site, watch, self.words)) as sender:
                    while (number := next(numbers)) < self.requests:
                        sender.send_one(self.seed, number)
                        self.done = max(self.done, number)
                    return sender.tally

            with ThreadPoolExecutor(threads) as pool:
                for seen in pool.map(work, range(threads)):
                    tally.add(seen)
            deaths = tuple(watch.deaths)
            for index, death in enumerate(deaths, 1):
                self.stage = f"looking for what ended tritonserver: {index} of {len(deaths)}"
                tally.ends.append(self._explain(death, watch))
        if self.site.is_gateway:
            tally.problems += [f"tritonserver ended behind the gateway: {end}" for end in tally.ends]
        return tally

    def _explain(self, death: Death, watch: Watch) -> End:
        """Send what was on its way once more, each alone, and see what ends tritonserver again."""
        end = End(death.pid, {})
        for number in death.numbers:
            with contextlib.closing(Sender(self.site, watch, self.words)) as sender:
                sent = sender.request(self.seed, number)
                request = sent.sent if isinstance(sent, Good) else sent
                end.requests[number] = f"{request.protocol}, {request.kind}"
                if isinstance(sent, Good):
                    continue
                sender.wait_for_good()
                before = len(watch.deaths)
                outcome = sender.send(request, number).outcome
                if watch.has_more_deaths(before, within_s=ALONE_S if outcome in LOST else ANSWERED_S):
                    end.culprits.append(number)
        return end


class Sender:
    """One thread's connections, and what it saw.

    Args:
        site: where to send.
        watch: of its tritonserver.
        words: that no answer may hold.
        protocols: to choose from.
    """

    def __init__(
        self, site: Site, watch: Watch, words: tuple[bytes, ...], protocols: Sequence[str] = ("http", "grpc")
    ) -> None:
        self._wires: dict[str, Wire] = {"http": HttpWire(site.entrance), "grpc": GrpcWire(site.entrance)}
        self._site = site
        self._watch = watch
        self._words = (*words, *site.secrets)
        self._protocols = protocols
        self.tally = Tally()

    def request(self, seed: int, number: int) -> Good | Sent:
        """Return the request of one number."""
        rng = random.Random(f"{seed}:{number}")
        protocol = rng.choice(self._protocols)
        if rng.random() < GOOD_SHARE:
            return good(rng, protocol)
        return hostile(rng, protocol, is_gateway=self._site.is_gateway)

    def send_one(self, seed: int, number: int) -> None:
        """Send the request of one number and judge its outcome."""
        request = self.request(seed, number)
        if isinstance(request, Good):
            self._send_good(request, number)
        else:
            self._send_hostile(request, number)

    def wait_for_good(self) -> None:
        """Wait until good requests are answered rightly, over each protocol."""
        for protocol in self._protocols:
            self._send_good(good(random.Random(0), protocol), -1)

    def close(self) -> None:
        """End all connections."""
        for wire in self._wires.values():
            wire.close()

    def send(self, sent: Sent, number: int) -> Got:
        """Send a request and judge its answer, whatever it asks for."""
        flight = self._watch.send(number)
        got = self._wires[sent.protocol].send(sent)
        flight.outcome, flight.ended_s = got.outcome, time.monotonic()
        self.tally.slowest_s = max(self.tally.slowest_s, flight.ended_s - flight.began_s)
        self.tally.sent[sent.kind] += 1
        self.tally.outcomes[f"{sent.protocol} {got.outcome}"] += 1
        if text := error_text(sent, got):
            self.tally.errors[text] += 1
        for leak in leaks(got.answer, sent.everything(), self._words):
            self._problem(number, sent, f"leaks {leak!r} in {got.answer[-300:]!r}")
        for fault in faults(sent, got, is_gateway=self._site.is_gateway):
            self._problem(number, sent, f"{fault} in {got.answer[-300:]!r}")
        return got

    def _send_hostile(self, sent: Sent, number: int) -> None:
        began_s = time.monotonic()
        got = self.send(sent, number)
        may_close = sent.is_short or sent.is_broken
        if got.outcome == "hang" or (got.outcome == "closed" and not may_close and not self._has_died(began_s)):
            self._problem(number, sent, f"{got.outcome}: {sent}"[:600])
        if sent.is_forbidden and got.outcome in {"200", "OK"}:
            self._problem(number, sent, f"was let in: {sent}"[:600])

    def _has_died(self, began_s: float) -> bool:
        return self._watch.has_died_since(began_s, within_s=NOTICED_S)

    def _problem(self, number: int, sent: Sent, text: str) -> None:
        self.tally.problems.append(f"{number}: {sent.protocol}, {sent.kind}: {text}")

    def _send_good(self, request: Good, number: int) -> None:
        began_s = time.monotonic()
        became = "right"
        while True:
            got = self.send(request.sent, number)
            problem = _problem(request, got)
            if not problem:
                self.tally.good[became] += 1
                return
            became = "right after its batch was overfilled" if OVERFILLED.search(got.body) else "right after healing"
            if got.outcome not in HEALING or time.monotonic() - began_s > HEALED_S:
                self.tally.good["wrong"] += 1
                self._problem(number, request.sent, f"{problem}: {got.answer[-300:]!r}")
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
