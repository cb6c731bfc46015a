from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.sums = {}

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x, start, end, ready = (
            pb_utils.get_input_tensor_by_name(request, name).as_numpy().item()
            for name in ("X", "START", "END", "READY")
        )
        key = pb_utils.get_input_tensor_by_name(request, "CORRID").as_numpy().item()
        self.sums[key] = (0 if start else self.sums[key]) + x
        flags = request.flags()
        assert bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_START) == bool(start)
        assert bool(flags & pb_utils.TRITONSERVER_REQUEST_FLAG_SEQUENCE_END) == bool(end)
        return pb_utils.InferenceResponse(
            [pb_utils.Tensor("Y", np.array([[self.sums[key], start, end, ready]], np.int32))]
        )
