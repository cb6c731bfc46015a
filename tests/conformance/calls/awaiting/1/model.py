"""An asynchronous model: it asks three at a time."""

from __future__ import annotations

import asyncio

import numpy as np

from safe_triton import BlsError, BlsPolicy, BlsTarget, BlsTensor, SafeTritonPythonModel

SIGNATURE = {
    "inputs": {"X": BlsTensor(dtype="FP32", dims=(-1,))},
    "outputs": {"Y": BlsTensor(dtype="FP32", dims=(-1,))},
}
ONE = {"Y": BlsTensor(dtype="FP32", dims=(1,))}


class TritonPythonModel(SafeTritonPythonModel):
    bls_policy = BlsPolicy(
        allow={
            "double": BlsTarget(version=1, **SIGNATURE),
            "liar": BlsTarget(version=1, timeout_ms=500, **SIGNATURE),
            "counting": BlsTarget(version=1, inputs=SIGNATURE["inputs"], outputs=ONE),
        }
    )

    async def infer(self, inputs):
        x = inputs["X"]
        if x[0] < 0:
            return await self.bls.async_infer("liar", {"X": -x})
        if x[0] >= 100:
            return {"Y": await self.streamed(x - 100)}
        answers = await asyncio.gather(*[self.bls.async_infer("double", {"X": x + number}) for number in range(3)])
        return {"Y": np.concatenate([answer["Y"] for answer in answers])}

    async def streamed(self, x):
        try:
            self.bls.stream("counting", {"X": x})
        except BlsError as error:
            refused = "async_stream" in error.message
        turns, done = 0, False

        async def turn():
            nonlocal turns
            while not done:
                turns += 1
                await asyncio.sleep(0)

        turning = asyncio.ensure_future(turn())
        answers = [answer["Y"] async for answer in self.bls.async_stream("counting", {"X": x})]
        done = True
        await turning
        return np.concatenate([*answers, np.array([refused, turns > len(answers)], np.float32)])
