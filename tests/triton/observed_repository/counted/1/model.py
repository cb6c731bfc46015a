"""Two instances whose counters add up; every outcome on request."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import InputLimits, Limits, ModelError, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(max_batch_size=4, deadline_ms=1500, inputs={"X": InputLimits(finite=True)})

    def load(self, context):
        self.name = context.instance_name

    def infer(self, inputs, request):
        how = request.parameters.get("do", "")
        if how == "raise":
            raise ValueError("broken")
        if how == "answer":
            raise ModelError("no such thing", code="NOT_FOUND")
        time.sleep(request.parameters.get("seconds", 0.0))
        return {"INSTANCE": np.array([[self.name]] * len(inputs["X"]), object)}
