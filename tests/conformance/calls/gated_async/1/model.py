"""An unmodified asynchronous class under ``protect(bls=…)``."""

from __future__ import annotations

import asyncio

import numpy as np
import triton_python_backend_utils as pb_utils

from safe_triton import BlsPolicy, BlsTarget, BlsTensor, protect

SIGNATURE = {
    "inputs": {"X": BlsTensor(dtype="FP32", dims=(-1,))},
    "outputs": {"Y": BlsTensor(dtype="FP32", dims=(-1,))},
}


class Original:
    async def execute(self, requests):
        return [await self.answer(request) for request in requests]

    async def answer(self, request):
        what, x = (pb_utils.get_input_tensor_by_name(request, name).as_numpy() for name in ("WHAT", "X"))
        model = what[0].decode()
        calls = [
            pb_utils.InferenceRequest(
                model_name=model, inputs=[pb_utils.Tensor("X", x + number)], requested_output_names=["Y"]
            ).async_exec()
            for number in range(1 if model == "liar" else 3)
        ]
        responses = await asyncio.gather(*calls)
        if responses[0].has_error():
            y, said = x, responses[0].error().message()
        else:
            y, said = np.concatenate([each.output_tensors()[0].as_numpy() for each in responses]), ""
        outputs = [pb_utils.Tensor("Y", y), pb_utils.Tensor("SAID", np.array([said.encode()], object))]
        return pb_utils.InferenceResponse(outputs)


TritonPythonModel = protect(
    Original,
    bls=BlsPolicy(
        allow={"double": BlsTarget(version=1, **SIGNATURE), "liar": BlsTarget(version=1, timeout_ms=500, **SIGNATURE)}
    ),
)
