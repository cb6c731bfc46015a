"""One FP32 input, one FP32 output: bare, under the base class and under ``protect``, one request each in turn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel, protect

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.alternate import AlternatingModel


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


class Guarded(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"Y": inputs["X"] * 2}


class TritonPythonModel(AlternatingModel):
    variants: ClassVar = {"bare": Bare, "guarded": Guarded, "protected": protect(Bare), "bare again": Bare}
