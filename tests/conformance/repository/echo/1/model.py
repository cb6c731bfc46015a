"""Reports what it saw of the request."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        seen = {
            "inputs": {
                each.name(): [str(each.as_numpy().dtype), each.as_numpy().shape, repr(each.as_numpy().tolist())]
                for each in request.inputs()
            },
            "id": request.request_id(),
            "correlation_id": request.correlation_id(),
            "flags": request.flags(),
            "timeout": request.timeout(),
            "parameters": json.loads(request.parameters()),
            "outputs": sorted(request.requested_output_names()),
        }
        text = np.array([[json.dumps(seen, sort_keys=True)]], dtype=object)
        tensors = [pb_utils.Tensor("SEEN", text), pb_utils.Tensor("Y", np.zeros((1, 1), np.float32))]
        return pb_utils.InferenceResponse(tensors)
