"""Counts down from X, and for ever where X is negative."""

from __future__ import annotations

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    """On a bare server, the loop would take this model away from everybody."""

    limits = Limits(deadline_ms=300, parameters={})

    def infer(self, inputs):
        """Count each number down to zero."""
        remaining = inputs["X"].copy()
        while (remaining != 0).any():
            remaining -= remaining > 0
        return {"Y": remaining}
