"""Requests concatenated, one call for all of them."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

SIGNATURE = {
    "inputs": {"X": BlsTensor(dtype="FP32", dims=(-1,))},
    "outputs": {"Y": BlsTensor(dtype="FP32", dims=(-1,))},
}


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(allow={"rows": BlsTarget(version=1, max_batch_size=8, **SIGNATURE)})

    def infer_batch(self, inputs):
        return self.bls.infer("rows", {"X": inputs["X"]})
