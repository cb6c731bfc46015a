"""The name of the likelier class, and how likely it is."""

from __future__ import annotations

import numpy as np

from safe_triton import InputLimits, Limits, SafeTritonPythonModel

LABELS = np.array([b"calm", b"shouting"], object)


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, inputs={"SCORES": InputLimits(finite=True, sequence_axis="none")})

    def infer_batch(self, inputs):
        best = inputs["SCORES"].argmax(axis=1)[:, None]
        return {"LABEL": LABELS[best], "CONFIDENCE": np.take_along_axis(inputs["SCORES"], best, axis=1)}
