"""A model as vendors ship it: Triton's plain interface, no checks, errors as they come. Left unchanged."""

from __future__ import annotations

import json

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """Raises an alarm when a sensor's readings swing too far."""

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.threshold = float(config["parameters"]["threshold"]["string_value"])
        self.calls = 0

    def execute(self, requests):
        responses = []
        for request in requests:
            readings = pb_utils.get_input_tensor_by_name(request, "READINGS").as_numpy()
            swing = readings.max(axis=1) - readings.min(axis=1)
            if (swing == 0).any():
                raise ValueError(f"sensor is stuck, see {__file__} and {readings.tolist()}")
            alarm = np.where(swing > self.threshold, b"ALARM", b"ok").astype(object)[:, np.newaxis]
            responses.append(pb_utils.InferenceResponse([pb_utils.Tensor("ALARM", alarm)]))
            self.calls += 1
        return responses

    def finalize(self):
        pb_utils.Logger.log_info(f"served {self.calls} requests")
