"""A small configuration and one model class per form, for tests of the runtime in this process."""

from __future__ import annotations

from typing import Any

import numpy as np

from safe_triton import SafeTritonPythonModel, protect
from safe_triton.testing import fakes

X = np.ones((1, 1), np.float32)


def model_config(*, batch: int = 8, decoupled: bool = False) -> dict[str, Any]:
    """FP32 ``X`` to FP32 ``Y`` of any length."""
    return {
        "max_batch_size": batch,
        "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [-1]}],
        "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [-1]}],
        "model_transaction_policy": {"decoupled": decoupled},
    }


CONFIG = model_config()


class Single(SafeTritonPythonModel):
    def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Batch(SafeTritonPythonModel):
    def infer_batch(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Concurrent(SafeTritonPythonModel):
    async def infer(self, inputs: dict[str, Any]) -> Any:
        return {"Y": inputs["X"]}


class Stream(SafeTritonPythonModel):
    def stream(self, inputs: dict[str, Any]) -> Any:
        yield {"Y": inputs["X"]}


def _answer(request: Any) -> Any:
    pb = fakes.PB_UTILS
    return pb.InferenceResponse([pb.Tensor("Y", request.inputs()[0].as_numpy())])


class Vendor:
    def execute(self, requests: list[Any]) -> Any:
        return [_answer(request) for request in requests]


class VendorStream:
    def execute(self, requests: list[Any]) -> None:
        for request in requests:
            sender = request.get_response_sender()
            sender.send(_answer(request))
            sender.send(flags=fakes.PB_UTILS.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


FORMS: dict[str, tuple[type, dict[str, Any]]] = {
    "infer": (Single, CONFIG),
    "infer_batch": (Batch, CONFIG),
    "async infer": (Concurrent, CONFIG),
    "stream": (Stream, model_config(decoupled=True)),
    "protect": (protect(Vendor), CONFIG),
    "protect decoupled": (protect(VendorStream), model_config(decoupled=True)),
}
