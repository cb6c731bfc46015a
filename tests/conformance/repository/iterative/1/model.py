"""Asks for each request ROUNDS times."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.args = args
        self.seen = 0

    def execute(self, requests):
        self.seen += 1
        rounds = int(pb_utils.get_input_tensor_by_name(requests[0], "ROUNDS").as_numpy().flat[0])
        if self.seen < rounds:
            requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None]
        seen, self.seen = self.seen, 0
        tensors = [
            pb_utils.Tensor("SEEN", np.array([[seen]], dtype=np.int32)),
            pb_utils.Tensor("ARGS", np.array([[json.dumps(self.args)]], dtype=object)),
        ]
        return [pb_utils.InferenceResponse(tensors)]
