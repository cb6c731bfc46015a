"""One FP32 input, one response through a sender: bare and by ``stream``, one request each in turn."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

import triton_python_backend_utils as pb_utils

from safe_triton import SafeTritonPythonModel

sys.path.append(str(Path(__file__).resolve().parents[5]))  # of the project; the stub ignores PYTHONPATH

from benchmarks.in_stub.alternate import AlternatingStreams


class Bare:
    def initialize(self, args):
        pass

    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            output = pb_utils.Tensor("Y", x * 2)
            sender.send(pb_utils.InferenceResponse(output_tensors=[output]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


class Guarded(SafeTritonPythonModel):
    def stream(self, inputs):
        yield {"Y": inputs["X"] * 2}


class TritonPythonModel(AlternatingStreams):
    variants: ClassVar = {"bare": Bare, "guarded": Guarded, "bare again": Bare}
