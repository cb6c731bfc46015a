"""Look up features in a slow store without making other requests wait."""

from __future__ import annotations

import asyncio

import numpy as np

from safe_triton import InputLimits, Limits, ModelError, SafeTritonPythonModel

STORE_CONCURRENCY = 16  # look-ups at a time; the others wait for their turn, and for their deadline
ARCHIVED_FROM = 1_000_000
LAST_KNOWN = 2_000_000


class TritonPythonModel(SafeTritonPythonModel):
    """`async def infer`: awaits the store, bounded in concurrency and in time."""

    limits = Limits(
        deadline_ms=500,
        inputs={"USER_ID": InputLimits(minimum=1)},
        parameters={},
    )

    def load(self, context):
        """Prepare the bound on look-ups at a time; a real model opens its connection pool here."""
        self.turn = asyncio.Semaphore(STORE_CONCURRENCY)

    async def infer(self, inputs):
        """Look up all rows of one request together."""
        rows = await asyncio.gather(*(self.look_up(int(user_id)) for user_id in inputs["USER_ID"][:, 0]))
        return {"FEATURES": np.array(rows, np.float32)}

    async def look_up(self, user_id):
        """Stand in for a network round trip; archived users take longer than the deadline allows."""
        if user_id > LAST_KNOWN:
            raise ModelError("no such user", code="NOT_FOUND")  # text and code reach the client as they are
        async with self.turn:
            await asyncio.sleep(0.02 if user_id < ARCHIVED_FROM else 5.0)
        return [user_id % 2, user_id % 3, user_id % 5, user_id % 7]
