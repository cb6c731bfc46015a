"""One model of a ring of three: it calls the next one."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

NEXT = "ring_b"


class TritonPythonModel(SafeTritonPythonModel):
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
