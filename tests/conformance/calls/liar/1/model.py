"""A bare model that answers as no model should: the first number of X says how."""

from __future__ import annotations

import time

import numpy as np
import triton_python_backend_utils as pb_utils

ANSWERS = {
    1: ("Y", np.zeros(1, np.float64)),
    2: ("Y", np.zeros((1, 1), np.float32)),
    3: ("Z", np.zeros(1, np.float32)),
    4: ("Y", np.array([np.nan], np.float32)),
    5: ("Y", np.zeros(1 << 20, np.float32)),
    6: ("Y", np.array([b"text"], object)),
}


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(*request.inputs()[0].as_numpy()) for request in requests]

    def answer(self, what, seconds=0.0):
        if what == 10:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("password hunter2 in /srv/secrets"))
        if what == 11:
            raise ValueError("password hunter2")
        if what == 12:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("limit.batch_size: 9 > 8 hunter2"))
        if what == 13:
            return pb_utils.InferenceResponse(error=pb_utils.TritonError("bls.cycle: /srv/hunter2 > password"))
        time.sleep(float(seconds))
        name, array = ANSWERS.get(int(what), ("Y", np.zeros(1, np.float32)))
        return pb_utils.InferenceResponse([pb_utils.Tensor(name, array)])
