"""One FP32 input, one FP32 output, as a coroutine: bare and under the base class."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.replay import AsyncReplayModel


class Bare:
    def initialize(self, args):
        pass

    async def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            output = pb_utils.Tensor("Y", x * 2)
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return responses


class Guarded(SafeTritonPythonModel):
    async def infer(self, inputs):
        return {"Y": inputs["X"] * 2}


class TritonPythonModel(AsyncReplayModel):
    variants: ClassVar = {"bare": Bare, "guarded": Guarded, "bare again": Bare}
