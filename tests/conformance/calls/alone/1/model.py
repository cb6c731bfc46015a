"""Calls an ensemble whose only step is this model, which has no other instance."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, Limits, SafeTritonPythonModel

NEXT = "alone_again"


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000)
    bls_policy = BlsPolicy(
        allow={
            NEXT: BlsTarget(
                version=1,
                inputs={"X": BlsTensor(dtype="FP32", dims=(-1,))},
                outputs={"Y": BlsTensor(dtype="FP32", dims=(-1,))},
            )
        }
    )

    def infer(self, inputs):
        return self.bls.infer(NEXT, {"X": inputs["X"]})
