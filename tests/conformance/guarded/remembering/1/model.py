"""Sums the numbers of a sequence, and fails in several ways."""

from __future__ import annotations

import numpy as np

from safe_triton import Limits, SafeTritonPythonModel, SequenceLimits


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=20_000)
    sequences = SequenceLimits(max_sequences=3, max_steps=4, max_state_bytes=1000, max_idle_ms=30_000)

    def infer(self, inputs, request):
        sequence = request.sequence
        x = inputs["X"]
        sequence.state["sum"] = sequence.state.get("sum", 0) + x
        if x[0, 0] == -1:
            raise ValueError("failed after the state was changed")
        if x[0, 0] == -2:
            sequence.state["large"] = np.zeros(1000)
        if x[0, 0] == -4:
            sequence.state["list"] = [1]
        return {"SUM": sequence.state["sum"], "STEP": np.array([[sequence.step]], np.int64)}
