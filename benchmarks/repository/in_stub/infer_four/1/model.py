"""Four FP32 inputs, one FP32 output: bare and under the base class."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.replay import ReplayModel


class Bare:
    def initialize(self, args):
        pass

    def execute(self, requests):
        responses = []
        for request in requests:
            a = pb_utils.get_input_tensor_by_name(request, "A").as_numpy()
            b = pb_utils.get_input_tensor_by_name(request, "B").as_numpy()
            c = pb_utils.get_input_tensor_by_name(request, "C").as_numpy()
            d = pb_utils.get_input_tensor_by_name(request, "D").as_numpy()
            output = pb_utils.Tensor("Y", a + b + c + d)
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
        return responses


class Guarded(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["A"] + inputs["B"] + inputs["C"] + inputs["D"]}


class TritonPythonModel(ReplayModel):
    variants: ClassVar = {"bare": Bare, "guarded": Guarded, "bare again": Bare}
