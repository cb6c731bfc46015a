from __future__ import annotations

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        self.family = pb_utils.MetricFamily(
            name="compatible_total", description="d", kind=pb_utils.MetricFamily.COUNTER
        )
        self.metric = self.family.Metric(labels={"model": args["model_name"]})

    def execute(self, requests):
        self.metric.increment(len(requests))
        value = np.array([[self.metric.value()]], np.float32)
        return [pb_utils.InferenceResponse([pb_utils.Tensor("Y", value)]) for _ in requests]

    def finalize(self):
        raise ValueError("at the end")
