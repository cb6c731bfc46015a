"""Runs in Triton's stub: under ordinary traffic, each execute is answered by the next variant and timed.

A replay finds code and data in the processor's caches. Between two requests of real traffic the server, the client and
the kernel have used them, so everything costs more; here all variants meet that alike, in one process.
"""

from __future__ import annotations

import json
import random
from time import perf_counter_ns
from typing import Any

from benchmarks.in_stub.replay import ReplayModel, report


class AlternatingModel(ReplayModel):
    """Base of a model whose variants take turns; a request with the parameter ``report`` gets the times so far."""

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self._times_ns: dict[str, list[int]] = {name: [] for name in self.models}
        self._turns = [(model.execute, self._times_ns[name].append) for name, model in self.models.items()]
        self._turn = 0

    def execute(self, requests: list[Any]) -> list[Any]:
        if len(requests[0].parameters()) > len("{}"):
            found = json.dumps(self._times_ns)
            for times_ns in self._times_ns.values():
                times_ns.clear()
            return [report(found) for _ in requests]
        if self._turn == len(self._turns):
            self._turn = 0
            random.shuffle(self._turns)  # none always follows the same other one
        run, note = self._turns[self._turn]
        self._turn += 1
        start = perf_counter_ns()
        responses: list[Any] = run(requests)
        note(perf_counter_ns() - start)
        return responses
