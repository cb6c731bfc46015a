"""Declares every limit, small, so that each can be met and exceeded by one."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, Field

from safe_triton import InputLimits, Limits, OutputLimits, ParameterLimits, SafeTritonPythonModel


class Order(BaseModel):
    item: str
    count: int = Field(ge=1, le=10)


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        max_batch_size=4,
        max_sequence_length=8,
        max_inputs=3,
        max_input_bytes=256,
        max_request_bytes=300,
        max_elements=40,
        max_strings=6,
        max_string_bytes=64,
        max_parameters=3,
        max_parameter_bytes=64,
        max_id_length=16,
        max_output_bytes=500,
        inputs={
            "TEXT": InputLimits(utf8=True),
            "ORDER": InputLimits(schema=Order),
            "TOKENS": InputLimits(minimum=0, maximum=1000, max_bytes=128),
            "FEATURES": InputLimits(finite=True, sequence_axis=2),
        },
        outputs={"Y": OutputLimits(max_bytes=400)},
        parameters={
            "temperature": ParameterLimits(type=float, minimum=0.0, maximum=2.0),
            "tries": ParameterLimits(type=int, minimum=1, maximum=5),
            "style": ParameterLimits(choices=("plain", "loud")),
            "name": ParameterLimits(max_length=8),
            "verbose": ParameterLimits(type=bool),
            "size": ParameterLimits(type=int, minimum=0, maximum=10_000),
        },
    )

    def infer(self, inputs, request):
        rows = next(iter(inputs.values())).shape[0]
        text = ",".join(sorted(inputs))
        if "ORDER" in inputs:
            order = inputs["ORDER"][0, 0]
            text = f"{order.count} x {order.item}"
        if "size" in request.parameters:
            text = "y" * request.parameters["size"]
        return {"Y": np.array([[text]] * rows, dtype=object)}
