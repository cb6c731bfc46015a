"""Has one input more than a request may bring by default."""

from __future__ import annotations

import numpy as np

from safe_triton import SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    def infer(self, inputs):
        return {"COUNT": np.array([len(inputs)], np.int32)}
