"""Calls a model that calls it back and hides the path."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, Limits, SafeTritonPythonModel

NEXT = "hiding"


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
        if inputs["X"][0] == 0:
            return {"Y": inputs["X"]}
        return self.bls.infer(NEXT, {"X": inputs["X"]})
