"""One call for all requests of an execute: batched by hand, and by ``infer_batch``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.replay import ReplayModel


class Bare:
    def initialize(self, args):
        pass

    def execute(self, requests):
        arrays = [pb_utils.get_input_tensor_by_name(request, "X").as_numpy() for request in requests]
        y = np.concatenate(arrays) * 2
        responses = []
        start = 0
        for array in arrays:
            stop = start + array.shape[0]
            output = pb_utils.Tensor("Y", y[start:stop])
            responses.append(pb_utils.InferenceResponse(output_tensors=[output]))
            start = stop
        return responses


class Guarded(SafeTritonPythonModel):
    def infer_batch(self, inputs):
        return {"Y": inputs["X"] * 2}


class TritonPythonModel(ReplayModel):
    variants: ClassVar = {"bare": Bare, "guarded": Guarded, "bare again": Bare}
