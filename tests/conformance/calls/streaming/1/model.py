"""A decoupled model: each response asks another model."""

from __future__ import annotations

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

SIGNATURE = {
    "inputs": {"X": BlsTensor(dtype="FP32", dims=(-1,))},
    "outputs": {"Y": BlsTensor(dtype="FP32", dims=(-1,))},
}


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(allow={"double": BlsTarget(version=1, **SIGNATURE)})

    def stream(self, inputs):
        x = inputs["X"]
        for _ in range(3):
            x = self.bls.infer("double", {"X": x})["Y"]
            yield {"Y": x}
