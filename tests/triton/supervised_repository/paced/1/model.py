"""An unmodified iterative sequence: ``execute`` returns at once and has the request scheduled again, many times."""

from __future__ import annotations

import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.left = 0

    def execute(self, requests):
        (request,) = requests
        if self.left == 0:
            self.left = int(pb_utils.get_input_tensor_by_name(request, "COUNT").as_numpy().flat[0])
        time.sleep(0.2)
        self.left -= 1
        if self.left:
            request.set_release_flags(pb_utils.TRITONSERVER_REQUEST_RELEASE_RESCHEDULE)
            return [None]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("N", np.array([[0]], dtype=np.int32))])]
