"""Waits as long as it is told."""

from __future__ import annotations

import asyncio
import sys

from safe_triton import Limits, SafeTritonPythonModel


class TritonPythonModel(SafeTritonPythonModel):
    limits = Limits(deadline_ms=1000, hard_deadline_grace_ms=20_000)

    async def infer(self, inputs):
        seconds = float(inputs["SECONDS"][0, 0])
        if seconds < 0:
            raise ValueError("negative in /srv/models")
        if seconds == 100:
            sys.exit(3)
        await asyncio.sleep(seconds)
        return {"Y": inputs["SECONDS"]}
