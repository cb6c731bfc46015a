"""What a request costs, counted instead of timed: neither load nor the speed of a machine moves these figures."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import safe_triton
from safe_triton import SafeTritonPythonModel, protect
from safe_triton.testing import Request, load_model

if TYPE_CHECKING:
    from typing_extensions import Self

PACKAGE = Path(safe_triton.__file__).parent
REPEATS = 5
COUNTED = (str(PACKAGE / "runtime"), str(PACKAGE / "validation"))

ROW: dict[str, Any] = {"data_type": "TYPE_FP32", "dims": [16]}
WORDS: dict[str, Any] = {"data_type": "TYPE_STRING", "dims": [4]}


def config(form: dict[str, Any], inputs: tuple[str, ...] = ("X",), *, decoupled: bool = False) -> dict[str, Any]:
    """A model's configuration with some inputs and the output Y, all alike."""
    return {
        "max_batch_size": 32,
        "input": [{"name": name, **form} for name in inputs],
        "output": [{"name": "Y", **form}],
        "model_transaction_policy": {"decoupled": decoupled},
        **({} if decoupled else {"dynamic_batching": {}}),
    }


class Infer(SafeTritonPythonModel):
    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": next(iter(inputs.values()))}


class InferBatch(SafeTritonPythonModel):
    def infer_batch(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class AsyncInfer(SafeTritonPythonModel):
    async def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Stream(SafeTritonPythonModel):
    def stream(self, inputs: dict[str, Any]) -> Any:
        yield {"Y": inputs["X"]}


class Bare:
    def execute(self, requests: list[Any]) -> list[Any]:
        import triton_python_backend_utils as pb_utils

        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("Y", request.inputs()[0].as_numpy())]) for request in requests
        ]


class Counter:
    """Counts the bytecodes that the request path's own code executes, and the calls that it makes, in every thread.

    Threads of the runtime's own are left out: when they run is the machine's affair.
    """

    def __init__(self) -> None:
        self.bytecodes = self.calls = 0

    def __enter__(self) -> Self:
        self._before = [(each, each.gettrace(), each.getprofile()) for each in (threading, sys)]
        for module in (threading, sys):  # the fake runs coroutines in a thread, as the stub does
            module.settrace(self._trace)
            module.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        for module, trace, profile in self._before:
            module.settrace(trace)
            module.setprofile(profile)

    def of(self, function: Callable[[], Any]) -> tuple[int, int]:
        """Return both counts of one call, the least of a few: once a second a request sets the kernel timer."""
        found = []
        for _ in range(REPEATS):
            self.bytecodes = self.calls = 0
            function()
            found.append((self.bytecodes, self.calls))
        return min(found)

    def _trace(self, frame: FrameType, event: str, _argument: object) -> Any:
        if event == "call" and not is_counted(frame):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        self.bytecodes += event == "opcode"
        return self._trace

    def _profile(self, frame: FrameType, event: str, _argument: object) -> None:
        caller = frame if event == "c_call" else frame.f_back if event == "call" else None
        self.calls += is_counted(caller)


def is_counted(frame: FrameType | None) -> bool:
    """Whether this is the request path's own code."""
    is_own = frame is not None and frame.f_code.co_filename.startswith(COUNTED)
    return is_own and not threading.current_thread().name.startswith("safe_triton")


FIGURES: dict[str, dict[int, tuple[int, int]]] = {
    "infer": {1: (254, 23), 8: (1507, 142)},
    "infer, four inputs": {1: (496, 48), 8: (3422, 342)},
    "infer, strings": {1: (383, 32), 8: (2518, 214)},
    "infer_batch": {1: (535, 46), 8: (2272, 183)},
    "async infer": {1: (368, 31), 8: (2763, 228)},
    "stream": {1: (606, 46), 8: (4848, 368)},
    "protect": {1: (379, 26), 8: (2327, 197)},
}
"""Bytecodes and calls of an execute by its requests, on CPython 3.11; the others need as many or fewer."""

TOLERANCE = 1.1

MODELS = {
    "infer": (Infer, config(ROW)),
    "infer, four inputs": (Infer, config(ROW, ("A", "B", "C", "D"))),
    "infer, strings": (Infer, config(WORDS)),
    "infer_batch": (InferBatch, config(ROW)),
    "async infer": (AsyncInfer, config(ROW)),
    "stream": (Stream, config(ROW, decoupled=True)),
    "protect": (protect(Bare), config(ROW)),
}


def cost(name: str, requests: int) -> tuple[int, int]:
    """Bytecodes and calls of one execute."""
    model, fields = MODELS[name]
    inputs = {
        each["name"]: np.ones((1, 16), np.float32) if each["dims"] == [16] else np.full((1, 4), b"word", object)
        for each in fields["input"]
    }
    with Counter() as counter, load_model(model, fields) as loaded:

        def ask() -> None:
            assert [outcome.error for outcome in loaded.execute([Request(inputs)] * requests)] == [None] * requests

        ask()  # what was found good is remembered
        return counter.of(ask)


@pytest.mark.parametrize("requests", [1, 8])
@pytest.mark.parametrize("name", MODELS)
def test_no_more_than_it_was(name: str, requests: int) -> None:
    """A change that makes a request do a tenth more is noticed; where it is worth that, it writes the figure anew."""
    found, figure = cost(name, requests), FIGURES[name][requests]
    for got, was in zip(found, figure, strict=True):
        assert got <= was * TOLERANCE, f"{found} bytecodes and calls, {figure} before"


def test_counting_sees_what_is_added() -> None:
    """A check that did not run before is in both counts."""
    assert min(one - other for one, other in zip(cost("infer, strings", 1), cost("infer", 1), strict=True)) > 5


def test_counting_is_exact() -> None:
    """The same code gives the same counts, whatever else this machine does."""
    assert cost("async infer", 2) == cost("async infer", 2)
