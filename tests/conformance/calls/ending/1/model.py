"""Calls without a thread: a call that does not come back ends with the process."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, Limits, SafeTritonPythonModel

NUMBERS = BlsTensor(dtype="FP32", dims=(-1,))


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=1000)
    bls_policy = BlsPolicy(
        allow={"sleeping": BlsTarget(version=1, inputs={"X": NUMBERS}, outputs={"Y": NUMBERS})}, when_late="end"
    )

    def infer(self, inputs):
        return self.bls.infer("sleeping", {"X": inputs["X"]})
