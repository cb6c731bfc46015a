"""An asynchronous model: it asks three at a time."""

from __future__ import annotations

import asyncio

import numpy as np

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

SIGNATURE = {
    "inputs": {"X": BlsTensor(dtype="FP32", dims=(-1,))},
    "outputs": {"Y": BlsTensor(dtype="FP32", dims=(-1,))},
}


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(
        allow={
            "double": BlsTarget(version=1, **SIGNATURE),
            "liar": BlsTarget(version=1, timeout_ms=500, **SIGNATURE),
        }
    )

    async def infer(self, inputs):
        x = inputs["X"]
        if x[0] < 0:
            return await self.bls.async_infer("liar", {"X": -x})
        answers = await asyncio.gather(*[self.bls.async_infer("double", {"X": x + number}) for number in range(3)])
        return {"Y": np.concatenate([answer["Y"] for answer in answers])}
