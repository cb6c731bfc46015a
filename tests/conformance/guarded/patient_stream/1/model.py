"""As many responses as are asked for, each after a pause that nothing but an interrupt ends early."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=120_000)

    def stream(self, inputs):
        for _ in range(inputs["COUNT"][0]):
            time.sleep(inputs["PAUSE_MS"][0] / 1000)
            yield {"Y": np.zeros(1, np.uint8)}
