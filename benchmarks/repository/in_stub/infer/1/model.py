"""One FP32 input, one FP32 output: bare, leanly bare, under the base class, and with checks by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.by_hand import ByHand, ByPydantic
from benchmarks.in_stub.replay import ReplayModel


class Bare:
    """As Triton's own examples are written."""

    def initialize(self, args):
        pass

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            output = pb_utils.Tensor("Y", x * 2)
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return responses


class Lean:
    """The least that a bare model can do: no look-up by name, nothing looked up twice."""

    def initialize(self, args):
        tensor, response = pb_utils.Tensor, pb_utils.InferenceResponse

        def execute(requests):
            return [response([tensor("Y", request.inputs()[0].as_numpy() * 2)]) for request in requests]

        self.execute = execute


class Guarded(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["X"] * 2}


class TritonPythonModel(ReplayModel):
    variants: ClassVar = {
        "bare": Bare,
        "guarded": Guarded,
        "bare again": Bare,
        "lean": Lean,
        "by hand": ByHand,
        "pydantic": ByPydantic,
    }
