"""A linear classifier of two classes."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, OutputLimits, SafeTritonPythonModel

WEIGHTS = np.array([[-4.0, 4.0], [-20.0, 20.0], [0.0, 0.0]], np.float32)
BIAS = np.array([2.0, -2.0], np.float32)


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        deadline_ms=1000,
        inputs={"X": InputLimits(finite=True, sequence_axis="none")},
        outputs={"SCORES": OutputLimits(finite=True)},
    )

    def infer_batch(self, inputs):
        weight = np.exp(inputs["X"] @ WEIGHTS + BIAS)
        return {"SCORES": weight / weight.sum(axis=1, keepdims=True)}
