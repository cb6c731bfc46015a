from __future__ import annotations

import asyncio

import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    async def execute(self, requests):
        tasks = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            if x[0, 0] < 0:
                raise ValueError("negative")
            tasks.append(asyncio.create_task(self.stream(request.get_response_sender(), x)))
        if x[0, 0] != 9:
            await asyncio.gather(*tasks)
        self.kept = tasks

    async def stream(self, sender, x):
        for number in range(int(x[0, 0])):
            await asyncio.sleep(0.01)
            sender.send(pb_utils.InferenceResponse([pb_utils.Tensor("Y", x + number)]))
        sender.send(flags=pb_utils.TRITONSERVER_RESPONSE_COMPLETE_FINAL)
