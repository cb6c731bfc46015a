"""As many responses of a size as are asked for, with a pause before each."""

from __future__ import annotations

import time

import numpy as np

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=10_000, max_responses=5, max_stream_bytes=1_000, stream_deadline_ms=1200)

    def stream(self, inputs):
        for _ in range(inputs["COUNT"][0]):
            time.sleep(inputs["PAUSE_MS"][0] / 1000)
            yield {"Y": np.zeros(inputs["SIZE"][0], np.uint8)}
