"""Clients of a real server, sync and async, asked in the same way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from safe_triton.client import AsyncSafeTritonClient, SafeTritonClient


def texts(*items: str | bytes, shape: tuple[int, ...] = (-1,)) -> Any:
    array = np.empty(len(items), object)
    array[:] = items
    return array.reshape(shape)


class Blocking:
    """Calls a sync client as if it were async, so that one test asks both."""

    def __init__(self, client: SafeTritonClient) -> None:
        self._client = client

    async def __call__(self, do: str, *arguments: Any, **options: Any) -> Any:
        result = getattr(self._client, do)(*arguments, **options)
        return list(result) if do == "stream" else result

    async def sums(self, model: str, numbers: Sequence[int]) -> list[int]:
        """Send the numbers as one sequence."""
        last = len(numbers) - 1
        with self._client.sequence(model) as sequence:
            answers = [sequence.infer({"X": np.array([[n]])}, end=at == last) for at, n in enumerate(numbers)]
        return [int(answer["SUM"].item()) for answer in answers]

    async def close(self) -> None:
        self._client.close()


class Awaiting:
    """The same of an async client."""

    def __init__(self, client: AsyncSafeTritonClient) -> None:
        self._client = client

    async def __call__(self, do: str, *arguments: Any, **options: Any) -> Any:
        result = getattr(self._client, do)(*arguments, **options)
        return [answer async for answer in result] if do == "stream" else await result

    async def sums(self, model: str, numbers: Sequence[int]) -> list[int]:
        """Send the numbers as one sequence."""
        last = len(numbers) - 1
        async with self._client.sequence(model) as sequence:
            answers = [await sequence.infer({"X": np.array([[n]])}, end=at == last) for at, n in enumerate(numbers)]
        return [int(answer["SUM"].item()) for answer in answers]

    async def close(self) -> None:
        await self._client.close()


def asker(urls: Mapping[str, str], variant: str, **options: Any) -> Blocking | Awaiting:
    """A client of one protocol, sync or async.

    Args:
        urls: the server's by protocol.
        variant: protocol and ``sync`` or ``async``.
        options: of the client.
    """
    protocol, _, kind = variant.partition(" ")
    url = urls[protocol]
    if kind == "async":
        return Awaiting(AsyncSafeTritonClient(url, **{"models": "any", **options}))
    return Blocking(SafeTritonClient(url, **{"models": "any", **options}))
