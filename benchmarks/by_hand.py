"""Checks as people write them into a model by hand, the same arithmetic behind them: what the guard is an alternative to.

Both check less than the base class does by default: no names, no data types, no ids and parameters, no outputs, no
deadline; and what an exception says reaches the client.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils
from pydantic import BaseModel, ConfigDict, field_validator

MAX_BATCH_SIZE = 32
MAX_SEQUENCE_LENGTH = 512
MAX_BYTES = 10_000_000
MODELS = ("by_hand", "by_pydantic")


class ByHand:
    """Batch, sequence length and bytes by an ``if`` each."""

    def initialize(self, args: dict[str, str]) -> None:
        self.factor = np.float32(2)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = []
        for request in requests:
            try:
                x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
                if x.shape[0] > MAX_BATCH_SIZE:
                    raise ValueError("batch too large")
                if x.ndim > 1 and x.shape[1] > MAX_SEQUENCE_LENGTH:
                    raise ValueError("sequence too long")
                if x.nbytes > MAX_BYTES:
                    raise ValueError("input too large")
                output = pb_utils.Tensor("Y", (x * self.factor).astype(np.float32))
                responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
            except Exception as error:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses


class CheckedRequest(BaseModel):
    """One request."""

    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())

    model_name: str
    request_id: str
    inputs: dict[str, Any]

    @field_validator("model_name")
    @classmethod
    def check_model(cls, name: str) -> str:
        """Only known models."""
        if name not in MODELS:
            raise ValueError("unknown model")
        return name

    @field_validator("inputs")
    @classmethod
    def check_inputs(cls, inputs: dict[str, Any]) -> dict[str, Any]:
        """Bound the bytes and the batch of each input."""
        for name, value in inputs.items():
            array = np.asarray(value)
            if array.nbytes > MAX_BYTES:
                raise ValueError(f"input {name} is too large")
            if array.shape[0] > MAX_BATCH_SIZE:
                raise ValueError(f"input {name} has too many rows")
        return inputs


class ByPydantic:
    """A pydantic model for each request."""

    def initialize(self, args: dict[str, str]) -> None:
        self.factor = np.float32(2)

    def execute(self, requests: list[Any]) -> list[Any]:
        responses = []
        for request in requests:
            try:
                inputs = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
                checked = CheckedRequest(model_name="by_pydantic", request_id=request.request_id(), inputs=inputs)
                output = pb_utils.Tensor("Y", checked.inputs["X"] * self.factor)
                responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
            except Exception as error:
                responses.append(pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))))
        return responses
