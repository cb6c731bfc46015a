"""A formula of config.pbtxt: `clip(x, 0, 1) * gain`, or what the operator writes there."""

from __future__ import annotations

import numpy as np

from safe_triton import SafeTritonPythonModel
from safe_triton.expressions import SafeExpression


class TritonPythonModel(SafeTritonPythonModel):
    def load(self, context):
        parameters = context.config.parameters
        self.gain = float(parameters["gain"])
        self.formula = SafeExpression(parameters["formula"], names=("x", "gain"))

    def infer(self, inputs):
        y = self.formula(x=inputs["X"], gain=self.gain)
        return {"Y": np.asarray(y, np.float32)}
