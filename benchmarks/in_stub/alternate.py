"""Runs in Triton's stub: under ordinary traffic, each execute is answered by the next variant and timed.

A replay finds code and data in the processor's caches. Between two requests of real traffic the server, the client and
the kernel have used them, so everything costs more; here all variants meet that alike, in one process.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import cache
from time import perf_counter_ns
from typing import Any, TypeAlias

import triton_python_backend_utils as pb_utils

from benchmarks.in_stub import OWN
from benchmarks.in_stub.replay import REPLAY, ReplayModel, report

Note: TypeAlias = Callable[[int], None]


class AlternatingModel(ReplayModel):
    """Base of a model whose variants take turns; a request with the parameter ``report`` gets the times so far.

    One with ``replay`` has the next execute replayed all the same.
    """

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self._times_ns: dict[str, list[int]] = {name: [] for name in self.models}
        self._turns = [(model.execute, self.noter_of(name)) for name, model in self.models.items()]
        self._turn = 0

    def execute(self, requests: list[Any]) -> Any:
        if self._armed is not None or REPLAY in requests[0].parameters():
            return super().execute(requests)
        if len(requests[0].parameters()) > len("{}"):
            found = json.dumps(self._times_ns)
            for times_ns in self._times_ns.values():
                times_ns.clear()
            return self.answer(requests, found)
        if self._turn == len(self._turns):
            self._turn = 0
            random.shuffle(self._turns)  # none always follows the same other one
        run, note = self._turns[self._turn]
        self._turn += 1
        start = perf_counter_ns()
        responses = run(requests)
        note(perf_counter_ns() - start)
        return responses

    def noter_of(self, name: str) -> Note:
        """Return what notes the nanoseconds of one execute of a variant."""
        return self._times_ns[name].append

    def answer(self, requests: list[Any], text: str) -> Any:
        """Answer each request with a text."""
        return [report(text) for _ in requests]


WAITED_NS = [0]
"""What calls waited for tritonserver and the called model."""


@cache
def timed_request() -> Any:
    """Return a class of requests whose ``exec`` adds its time to :data:`WAITED_NS`; Triton's own is there late."""

    class TimedRequest(pb_utils.InferenceRequest):  # type: ignore[misc]  # known in Triton's stub only
        def exec(self) -> Any:
            start = perf_counter_ns()
            response = super().exec()
            WAITED_NS[0] += perf_counter_ns() - start
            return response

    return TimedRequest


class AlternatingCalls(AlternatingModel):
    """The same for variants that call another model by :func:`timed_request`; each is noted with and without its waits."""

    block_ns = 0  # while a call waits, other processes run: several in a row would hardly ever be undisturbed

    def initialize(self, args: dict[str, str]) -> None:
        self._noted_ns = 0
        super().initialize(args)

    def noter_of(self, name: str) -> Note:
        """Return what notes both, the second one under a name of its own."""
        whole = super().noter_of(name)
        own = self._times_ns[f"{name}{OWN}"] = []

        def note(took_ns: int) -> None:
            whole(took_ns)
            own.append(took_ns - (WAITED_NS[0] - self._noted_ns))
            self._noted_ns = WAITED_NS[0]

        return note

    def waited_ns(self) -> int:
        """Return what all calls waited so far."""
        return WAITED_NS[0]


class AlternatingStreams(AlternatingModel):
    """The same for decoupled variants, each of which sends one response."""

    def answer(self, requests: list[Any], text: str) -> None:
        for request in requests:
            sender = request.get_response_sender()
            sender.send(report(text), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
