from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            text = json.dumps(json.loads(request.parameters()), sort_keys=True) + request.request_id()
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("Y", np.array([[text.encode()]], object))]))
        return responses
