"""Asks for each request ROUNDS times."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.args = args
        self.seen = []

    def execute(self, requests):
        self.seen.append([requests[0].flags(), requests[0].correlation_id(), len(requests), len(requests[0].inputs())])
        rounds = int(pb_utils.get_input_tensor_by_name(requests[0], "ROUNDS").as_numpy().flat[0])
        if len(self.seen) < rounds:
            requests[0].set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None]
        seen, self.seen = self.seen, []
        tensors = [
            pb_utils.Tensor("SEEN", np.array([[json.dumps(seen)]], dtype=object)),
            pb_utils.Tensor("ARGS", np.array([[json.dumps(self.args)]], dtype=object)),
        ]
        return [pb_utils.InferenceResponse(tensors)]
