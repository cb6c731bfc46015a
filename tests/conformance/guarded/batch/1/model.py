"""Adds per-row values and tells how many rows it was handed; certain values make it misbehave."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import InputLimits, Limits, OutputLimits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(
        max_batch_size=4,
        deadline_ms=1000,
        hard_deadline_grace_ms=20_000,
        inputs={"X": InputLimits(maximum=1000.0)},
        outputs={"Y": OutputLimits(finite=True)},
    )

    def infer_batch(self, inputs):
        x = inputs["X"]
        if (x == -1).any():
            raise ValueError("one row is bad")
        if (x == -2).any():
            return {"Y": x[:-1], "ROWS": np.ones((len(x) - 1, 1), np.int32)}
        if (x == -3).any():
            time.sleep(20)
        if (x == -6).any():
            try:
                time.sleep(20)
            except BaseException as error:
                raise RuntimeError("taken for a failure") from error
        if (x == -4).any():
            return None
        y = np.where(x == -5, np.inf, x * 10).astype(np.float32)
        if "BIAS" in inputs:
            y = y + inputs["BIAS"]
        return {"Y": y, "ROWS": np.full((len(x), 1), len(x), np.int32)}
