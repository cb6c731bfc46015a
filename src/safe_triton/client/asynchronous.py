"""``AsyncSafeTritonClient``: the same calls in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sized
from typing import TYPE_CHECKING, Any, TypeVar

from safe_triton.client import batch
from safe_triton.client.answer import Answer
from safe_triton.client.failures import error_of
from safe_triton.client.opening import ClientBase, SequenceState, open_transport, timeout_of
from safe_triton.client.request import Array, InferRequest, build_request
from safe_triton.client.signature import Signature
from safe_triton.client.steps import Pause, Steps
from safe_triton.client.transport import AsyncTransport, Call, Failure
from safe_triton.errors import ClientUsageError, SafeTritonError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from safe_triton.client.settings import Options

T = TypeVar("T")
Inputs = Mapping[str, Array]


class AsyncSafeTritonClient(ClientBase):
    """:class:`SafeTritonClient` for one event loop: the same arguments, methods, checks and errors.

    Use it in an ``async with`` block. Its connections belong to the loop of the first call; another loop needs a
    client of its own.

    Args:
        url: ``grpc://``, ``grpcs://``, ``http://`` or ``https://``, a host, and a port.
        transport: what sends instead of the network, such as :class:`AsyncFakeTransport`.
        options: the fields of :class:`ClientSettings`; ``models`` is required.

    Raises:
        ClientUsageError: an argument that is wrong, in one line.
    """

    def __init__(self, url: str, *, transport: AsyncTransport | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, options)
        self._transport: AsyncTransport = transport or open_transport(self.settings, is_async=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def infer(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        outputs: Iterable[str] = (),
        request_id: str = "",
        parameters: Mapping[str, bool | int | float | str] | None = None,
        priority: int = 0,
        timeout_s: float | None = None,
    ) -> Answer:
        """Ask a model and return its answer; see :meth:`SafeTritonClient.infer`."""
        request = build_request(
            model=model, inputs=inputs, version=version, outputs=outputs, request_id=request_id,
            parameters=parameters, priority=priority,
        )  # fmt: skip
        return await self.send(request, timeout_s=timeout_s)

    async def send(self, request: InferRequest, *, timeout_s: float | None = None) -> Answer:
        """Send a request that was built before; see :meth:`SafeTritonClient.infer`."""
        return await self._run(self._core.infer(request, timeout_of(timeout_s, self.settings.timeout_s)))

    async def stream(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        outputs: Iterable[str] = (),
        request_id: str = "",
        parameters: Mapping[str, bool | int | float | str] | None = None,
        timeout_s: float | None = None,
    ) -> AsyncIterator[Answer]:
        """Yield the responses of a model that streams; see :meth:`SafeTritonClient.stream`."""
        request = build_request(
            model=model, inputs=inputs, version=version, outputs=outputs, request_id=request_id,
            parameters=parameters,
        )  # fmt: skip
        steps = self._core.stream(request, timeout_of(timeout_s, self.settings.stream_timeout_s))
        call, left_s, check = await self._run(steps)
        replies = self._transport.stream(call, left_s)
        async with contextlib.aclosing(replies):  # type: ignore[type-var]
            try:
                async for reply in replies:
                    yield check(reply)
            except Failure as failure:
                raise error_of(failure) from None

    async def infer_many(
        self,
        model: str,
        requests: Iterable[Inputs],
        *,
        version: int | None = None,
        concurrency: int = 8,
        timeout_s: float | None = None,
        progress: batch.Progress | None = None,
    ) -> list[Answer]:
        """Ask a model many times, several at a time; see :meth:`SafeTritonClient.infer_many`."""
        outcomes = batch.Outcomes(len(requests) if isinstance(requests, Sized) else None, progress)
        await self._many(model, requests, version, concurrency, timeout_s, outcomes)
        return outcomes.in_order()

    async def infer_rows(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        rows_per_request: int | None = None,
        concurrency: int = 8,
        timeout_s: float | None = None,
        progress: batch.Progress | None = None,
    ) -> Answer:
        """Ask a model about many rows; see :meth:`SafeTritonClient.infer_rows`."""
        signature = await self.signature(model, version=version)
        parts, outcomes = batch.plan_rows(inputs, rows_per_request, signature, model, progress)
        await self._many(model, parts, version, concurrency, timeout_s, outcomes)
        return batch.joined(outcomes.in_order())

    @contextlib.asynccontextmanager
    async def sequence(
        self,
        model: str,
        *,
        id: int | str | None = None,  # noqa: A002 - Triton's word
        version: int | None = None,
    ) -> AsyncIterator[AsyncSequence]:
        """Open a sequence of a stateful model; see :meth:`SafeTritonClient.sequence`."""
        yield AsyncSequence(self, SequenceState({"model": model, "version": version}, id))

    async def signature(self, model: str, *, version: int | None = None) -> Signature | None:
        """Read what a model takes and gives from the server; ``None`` where it does not show it to this client."""
        return await self._run(self._core.signature(model, version, self.settings.timeout_s))

    async def metadata(self, model: str = "", *, version: int | None = None) -> Mapping[str, Any]:
        """Return a model's metadata as the server has it; the server's own without a name."""
        call = Call(kind="metadata" if model else "server_metadata", model=model, version=version)
        return await self._run(self._core.document(call, self.settings.timeout_s))

    async def is_live(self) -> bool:
        """Tell whether the server answers."""
        return await self._run(self._core.is_so(Call(kind="server_live"), self.settings.connect_timeout_s))

    async def is_ready(self, model: str = "", *, version: int | None = None) -> bool:
        """Tell whether a model is ready to infer; without a name, whether the server is."""
        call = Call(kind="model_ready" if model else "server_ready", model=model, version=version)
        return await self._run(self._core.is_so(call, self.settings.connect_timeout_s))

    async def close(self) -> None:
        """Close the connections. May be repeated."""
        self._is_closed = True
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        """Do what the steps ask for."""
        self._check_open()
        loop = asyncio.get_running_loop()
        self._loop = self._loop or loop
        if loop is not self._loop:
            raise ClientUsageError("client.usage: this client belongs to another event loop: build one in each")
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    await asyncio.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = await self._transport.send(step.call, step.timeout_s)
                except Failure as failure:
                    step = steps.throw(failure)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    async def _many(
        self,
        model: str,
        requests: Iterable[Inputs],
        version: int | None,
        concurrency: int,
        timeout_s: float | None,
        outcomes: batch.Outcomes,
    ) -> None:
        batch.check_many(requests, concurrency, outcomes.progress)
        numbered = iter(enumerate(requests))

        async def work() -> None:
            for index, inputs in numbered:
                if outcomes.is_hopeless:
                    return
                try:
                    outcome: Answer | SafeTritonError = await self.infer(
                        model, inputs, version=version, timeout_s=timeout_s
                    )
                except SafeTritonError as error:
                    outcome = error
                outcomes.note(index, outcome)

        workers = [asyncio.ensure_future(work()) for _ in range(concurrency)]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()


class AsyncSequence:
    """The requests of one sequence, in their order.

    Attributes:
        id: its number or name.
    """

    def __init__(self, client: AsyncSafeTritonClient, state: SequenceState) -> None:
        self._client, self._state = client, state
        self.id = state.id

    async def infer(self, inputs: Inputs, *, end: bool = False, timeout_s: float | None = None) -> Answer:
        """Send the next request; the first one starts the sequence, and ``end`` says that it is the last."""
        return await self._client.send(self._state.request(inputs, end=end), timeout_s=timeout_s)
