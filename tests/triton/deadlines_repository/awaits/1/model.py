"""A coroutine that can refuse to be cancelled."""

from __future__ import annotations

import asyncio

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=1000)

    async def infer(self, inputs, request):
        while request.parameters.get("do") == "swallow":
            try:
                await asyncio.sleep(300)
            except BaseException:
                pass
        return {"Y": inputs["X"] * 2}
