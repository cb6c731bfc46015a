"""A bare model that tells what came with its request."""

from __future__ import annotations

import json
import re

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        return [
            pb_utils.InferenceResponse([pb_utils.Tensor("SAID", np.array([self.tell(request)], object))])
            for request in requests
        ]

    def tell(self, request):
        parameters = json.loads(request.parameters())
        parameters["safe_triton.bls"] = re.sub(r"^\d+", "MS", parameters["safe_triton.bls"])
        told = [request.request_id(), request.correlation_id(), int(request.flags()), parameters]
        return json.dumps(told, sort_keys=True).encode()
