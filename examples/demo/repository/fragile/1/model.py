"""A model that knows nothing of safe_triton, with two bugs: -1 crashes its process, -2 makes it loop for ever."""

from __future__ import annotations

import os

import triton_python_backend_utils as pb_utils

CRASHES, HANGS = -1.0, -2.0


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if (x == CRASHES).any():
                os.abort()
            while (x == HANGS).any():
                pass
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x * 2)]))
        return responses
