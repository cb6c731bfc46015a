"""Runs in Triton's stub: replays the real requests of one execute through several variants of a model.

A request with the parameter ``replay`` arms the model; the requests of the next execute, which carry no parameters,
are then run again and again: one variant after the other in blocks of about a millisecond, with a loop of known work
between the blocks. The answer holds the figures of every block. Nothing is judged here.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections.abc import Callable, Mapping
from time import perf_counter_ns
from typing import Any, ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

Execute = Callable[[list[Any]], Any]

REPORT = "REPORT"
REPLAY = "replay"
BLOCK_NS = 1_000_000
CALIBRATION_NS = 100_000
WARM_CALLS = 200
CONTROL_CALLS = 50


class ReplayModel:
    """Base of the models that hold variants to compare.

    Attributes:
        variants: classes by name, each initialised with Triton's own arguments; the first is the yardstick.
        block_ns: nanoseconds of one block; 0 for a single execute.
    """

    block_ns = BLOCK_NS

    variants: ClassVar[dict[str, type]]

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        config["output"] = [output for output in config["output"] if output["name"] != REPORT]
        own = {**args, "model_config": json.dumps(config)}
        self.models = {name: variant() for name, variant in self.variants.items()}
        for model in self.models.values():
            model.initialize(own)
        self._armed: dict[str, Any] | None = None

    def execute(self, requests: list[Any]) -> list[Any]:
        parameters = json.loads(requests[0].parameters() or "{}")
        if REPLAY in parameters:
            self._armed = json.loads(parameters[REPLAY])
            return [report("armed") for _ in requests]
        settings, self._armed = self._armed, None
        if settings is None:
            return [report("not armed") for _ in requests]
        executes = {name: self.runner_of(model) for name, model in self.models.items()}
        found = replay(
            executes, requests, seconds=settings["seconds"], block_ns=self.block_ns, waited_ns=self.waited_ns
        )
        return [report(json.dumps(found))] + [report("") for _ in requests[1:]]

    def runner_of(self, model: Any) -> Execute:
        """Return what runs one variant."""
        execute: Execute = model.execute
        return execute

    def waited_ns(self) -> int:
        """Return what all executes so far waited for other models, which is not counted."""
        return 0

    def finalize(self) -> None:
        for model in self.models.values():
            if hasattr(model, "finalize"):
                model.finalize()


class AsyncReplayModel(ReplayModel):
    """Base of the models whose variants are coroutines: each execute runs to its end on an event loop of its own.

    What the loop costs, all variants cost alike.
    """

    def initialize(self, args: dict[str, str]) -> None:
        super().initialize(args)
        self._loop = asyncio.new_event_loop()

    def runner_of(self, model: Any) -> Execute:
        run, execute = self._loop.run_until_complete, model.execute
        return lambda requests: run(execute(requests))


def replay(
    executes: Mapping[str, Execute],
    requests: list[Any],
    *,
    seconds: float,
    block_ns: int,
    waited_ns: Callable[[], int],
) -> dict[str, Any]:
    """Time the variants in turn until the time is over.

    Args:
        executes: the variants' ``execute`` by name.
        requests: the real requests of one execute.
        seconds: how long to go on.
        block_ns: of one block, about.
        waited_ns: what all executes waited so far.

    Returns:
        ``requests`` per execute, ``repeats`` per block, ``calibration_ns`` (one for each gap between blocks), and
        ``blocks``: for each variant ``[gap before, nanoseconds per execute, involuntary, voluntary switches]``.
    """
    problems = [f"{name}: {problem}" for name, run in executes.items() if (problem := _problem(run, requests))]
    if problems:
        return {"problems": problems, "requests": len(requests)}
    repeats = max(1, block_ns // _fastest(next(iter(executes.values())), requests))
    spins = max(1, 1000 * CALIBRATION_NS // max(1, min(_spin(1000) for _ in range(50))))
    blocks: dict[str, list[tuple[int, float, int, int]]] = {name: [] for name in executes}
    order = list(executes)
    gaps: list[int] = []
    end_ns = perf_counter_ns() + int(seconds * 1e9)
    while perf_counter_ns() < end_ns:
        for name in order:
            run = executes[name]
            gaps.append(_spin(spins))
            before = resource.getrusage(resource.RUSAGE_THREAD)
            waited, start = waited_ns(), perf_counter_ns()
            for _ in range(repeats):
                run(requests)
            took = perf_counter_ns() - start - (waited_ns() - waited)
            after = resource.getrusage(resource.RUSAGE_THREAD)
            switches = after.ru_nivcsw - before.ru_nivcsw, after.ru_nvcsw - before.ru_nvcsw
            blocks[name].append((len(gaps) - 1, took / repeats, *switches))
        # Each variant follows each other one: none always runs in the caches that the same neighbour left.
        order = order[1:] + order[:1]
    gaps.append(_spin(spins))
    return {
        "requests": len(requests),
        "repeats": repeats,
        "calibration_ns": gaps,
        "blocks": blocks,
        "control_switches_per_call": _control(requests[0]),
    }


def report(text: str) -> Any:
    """Return a response with a text."""
    return pb_utils.InferenceResponse([pb_utils.Tensor(REPORT, np.array([[text]], dtype=object))])


def _problem(run: Execute, requests: list[Any]) -> str:
    """Return why a variant's figures would mean nothing: it refuses, fails or does not answer."""
    responses = run(requests)
    for _ in range(WARM_CALLS):
        responses = run(requests)
    if len(responses) != len(requests):
        return f"{len(responses)} responses for {len(requests)} requests"
    errors = [response.error().message() for response in responses if response.has_error()]
    return errors[0] if errors else ""


def _fastest(run: Execute, requests: list[Any]) -> int:
    fastest = BLOCK_NS
    for _ in range(50):
        start = perf_counter_ns()
        run(requests)
        fastest = min(fastest, perf_counter_ns() - start)
    return max(1, fastest)


def _spin(spins: int) -> int:
    """Return how long a loop of fixed work takes now."""
    start = perf_counter_ns()
    for _ in range(spins):
        pass
    return perf_counter_ns() - start


def _control(request: Any) -> float:
    """Return the voluntary switches of a call that is known to ask the server: what a round trip looks like here."""
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(CONTROL_CALLS):
        request.is_cancelled()
    return (resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before) / CONTROL_CALLS
