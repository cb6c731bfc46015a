"""``stream``."""

from __future__ import annotations

import numpy as np

from safe_triton import SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    def load(self, context):
        self.factor = np.float32(2)

    def stream(self, inputs):
        yield {"Y": inputs["X"] * self.factor}
