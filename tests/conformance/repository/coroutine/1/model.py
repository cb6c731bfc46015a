"""async def execute, ending in the way that MODE names."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def answer(self, text):
        return pb_utils.InferenceResponse([pb_utils.Tensor("T", np.array([text], dtype=object))])

    async def execute(self, requests):
        mode = requests[0].inputs()[0].as_numpy()[0].decode()
        return await getattr(self, mode)(requests)

    async def ok(self, requests):
        return [self.answer("ok")]

    async def slow(self, requests):
        await asyncio.sleep(0.05)
        return [self.answer("slow")]

    async def thread(self, requests):
        current = threading.current_thread()
        is_main = current is threading.main_thread()
        return [self.answer(f"main {is_main} daemon {current.daemon} {type(asyncio.get_running_loop()).__name__}")]

    async def raises(self, requests):
        await asyncio.sleep(0)
        raise ValueError("in the coroutine")

    async def triton(self, requests):
        raise pb_utils.TritonModelException("on purpose")

    async def none(self, requests):
        return None

    async def empty(self, requests):
        return []

    async def number(self, requests):
        return [1]

    async def cancelled(self, requests):
        raise asyncio.CancelledError

    async def sender(self, requests):
        await asyncio.sleep(0.01)
        requests[0].get_response_sender().send(self.answer("sent"), 1)

    async def task(self, requests):
        async def later(request):
            await asyncio.sleep(0.05)
            request.get_response_sender().send(self.answer("task"), 1)

        self.running = asyncio.get_running_loop().create_task(later(requests[0]))
