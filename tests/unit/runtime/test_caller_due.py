"""A guarded model's answer is wanted by its caller's deadline, which can only shorten its own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from safe_triton import Limits, SafeTritonPythonModel, protect
from safe_triton.policy.defaults import CALL_PARAMETER
from safe_triton.runtime.deadline import SHORTENED
from safe_triton.testing import Request, fakes, load_model
from tests.unit.runtime.models import model_config

LIMITS = Limits(deadline_ms=100_000, max_sequence_length=1)
PATIENCE_S = 120.0
LEFT_MS = 100


def slow(x: Any) -> Any:
    """Sleep for as many seconds as the first element says."""
    end = time.monotonic() + float(x.ravel()[0])
    while time.monotonic() < end:
        time.sleep(0.01)
    return {"Y": x}


class Single(SafeTritonPythonModel):
    limits = LIMITS

    def infer(self, inputs: dict[str, Any]) -> Any:
        return slow(inputs["X"])


class Finite(Single):
    limits = Limits(deadline_ms=100_000, max_id_length=100)  # not the plain signature's loop


class Batch(SafeTritonPythonModel):
    limits = LIMITS

    def infer_batch(self, inputs: dict[str, Any]) -> Any:
        return slow(inputs["X"])


class Concurrent(SafeTritonPythonModel):
    limits = LIMITS

    async def infer(self, inputs: dict[str, Any]) -> Any:
        await asyncio.sleep(float(inputs["X"].ravel()[0]))
        return {"Y": inputs["X"]}


class Stream(SafeTritonPythonModel):
    limits = LIMITS

    def stream(self, inputs: dict[str, Any]) -> Any:
        yield slow(inputs["X"])


class Vendor:
    def execute(self, requests: list[Any]) -> Any:
        pb = fakes.PB_UTILS
        return [
            pb.InferenceResponse([pb.Tensor("Y", slow(request.inputs()[0].as_numpy())["Y"])]) for request in requests
        ]


class VendorCoroutine:
    async def execute(self, requests: list[Any]) -> Any:
        pb = fakes.PB_UTILS
        await asyncio.sleep(float(requests[0].inputs()[0].as_numpy().ravel()[0]))
        return [pb.InferenceResponse([pb.Tensor("Y", request.inputs()[0].as_numpy())]) for request in requests]


MODELS: dict[str, Callable[[], type]] = {
    "infer": lambda: Single,
    "infer with more checks": lambda: Finite,
    "infer_batch": lambda: Batch,
    "async infer": lambda: Concurrent,
    "stream": lambda: Stream,
    "protect": lambda: protect(Vendor, limits=LIMITS),
    "protect async": lambda: protect(VendorCoroutine, limits=LIMITS),
}


def request(seconds: float, call: str = "") -> Request:
    """A request that takes so long; with what a caller's request carries."""
    return Request({"X": np.full((1, 1), seconds, np.float32)}, {CALL_PARAMETER: call} if call else None)


@pytest.mark.parametrize("form", MODELS)
def test_the_callers_time_ends_the_call(form: str) -> None:
    """Long before the model's own deadline; the next request has its whole time again."""
    with load_model(MODELS[form](), model_config(decoupled=form == "stream")) as model:
        start = time.monotonic()
        (late,) = model.execute([request(PATIENCE_S, f"{LEFT_MS} caller:1")])
        assert time.monotonic() - start < PATIENCE_S / 2
        assert late.error == SHORTENED or "protect" in form
        assert (late.error or "").startswith("deadline.exceeded: ")
        (good,) = model.execute([request(3 * LEFT_MS / 1000)])
        assert good.error is None


@pytest.mark.parametrize("form", MODELS)
@pytest.mark.parametrize("call", ["", "x", "-1 a:1", "1e9 a:1", "99999999999 a:1", "١ a:1"])
def test_what_no_guarded_caller_writes_changes_nothing(form: str, call: str) -> None:
    """A client may send anything under that name."""
    with load_model(MODELS[form](), model_config(decoupled=form == "stream")) as model:
        (good,) = model.execute([request(0.0, call)])
        assert good.error is None


def test_a_batch_waits_for_its_most_patient_caller() -> None:
    """One request of a client among them: nothing is shortened."""
    with load_model(Batch, {**model_config(), "dynamic_batching": {}}) as model:
        both = model.execute([request(3 * LEFT_MS / 1000, f"{LEFT_MS} caller:1"), request(0.0)])
        assert [each.error for each in both] == [None, None]


def test_a_refused_request_leaves_no_time_behind() -> None:
    """The time of a request that was refused is not the next one's."""
    with load_model(Single, model_config()) as model:
        wrong = Request({"X": np.zeros((1, 2), np.float32)}, {CALL_PARAMETER: f"{LEFT_MS} caller:1"})
        assert (model.execute([wrong])[0].error or "").startswith("limit.sequence_length")
        assert model.execute([request(3 * LEFT_MS / 1000)])[0].error is None
