"""Runs in Triton's stub: under ordinary traffic, each execute is answered by the next variant and timed.

A replay finds code and data in the processor's caches. Between two requests of real traffic the server, the client and
the kernel have used them, so everything costs more; here all variants meet that alike, in one process.
"""

from __future__ import annotations

import json
import random
from time import perf_counter_ns
from typing import Any

import triton_python_backend_utils as pb_utils

from benchmarks.in_stub.replay import ReplayModel, report


class AlternatingModel(ReplayModel):
    """Base of a model whose variants take turns; a request with the parameter ``report`` gets the times so far."""

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self._times_ns: dict[str, list[int]] = {name: [] for name in self.models}
        self._turns = [(model.execute, self._times_ns[name].append) for name, model in self.models.items()]
        self._turn = 0

    def execute(self, requests: list[Any]) -> Any:
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

    def answer(self, requests: list[Any], text: str) -> Any:
        """Answer each request with a text."""
        return [report(text) for _ in requests]


class AlternatingStreams(AlternatingModel):
    """The same for decoupled variants, each of which sends one response."""

    def answer(self, requests: list[Any], text: str) -> None:
        for request in requests:
            sender = request.get_response_sender()
            sender.send(report(text), flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
