"""A wrapped stream whose single call of ``execute`` takes far longer than the deadline and never stops answering."""

from __future__ import annotations

import time

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import Limits, protect


class Steady:
    def execute(self, requests):
        for request in requests:
            sender = request.get_response_sender()
            for index in range(request.inputs()[0].as_numpy()[0]):
                time.sleep(0.2)
                sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("INDEX", np.array([index], np.int32))]))
            sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)


TritonPythonModel = protect(Steady, limits=Limits(deadline_ms=1000, hard_deadline_grace_ms=1000))
