"""``SafeTritonClient``: blocking calls, from any thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any, TypeVar

from safe_triton.client import batch
from safe_triton.client.answer import Answer
from safe_triton.client.failures import error_of
from safe_triton.client.opening import ClientBase, SequenceState, open_transport, timeout_of
from safe_triton.client.request import Array, InferRequest, build_request
from safe_triton.client.signature import Signature
from safe_triton.client.steps import Pause, Steps
from safe_triton.client.transport import Call, Failure, Transport
from safe_triton.errors import SafeTritonError

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self, Unpack

    from safe_triton.client.settings import Options

T = TypeVar("T")
Inputs = Mapping[str, Array]


class SafeTritonClient(ClientBase):
    """A client of one Triton server: requests are checked before they leave, answers before they are returned.

    Use it in a ``with`` block. It may be shared between threads; a child process needs one of its own.

    Args:
        url: ``grpc://``, ``grpcs://``, ``http://`` or ``https://``, a host, and a port.
        transport: what sends instead of the network, such as :class:`FakeTransport`.
        options: the fields of :class:`ClientSettings`; ``models`` is required.

    Raises:
        ClientUsageError: an argument that is wrong, in one line.

    Does not cover:
        What a server may do with what it is sent: TLS says whose server it is, not what runs there.
    """

    def __init__(self, url: str, *, transport: Transport | None = None, **options: Unpack[Options]) -> None:
        super().__init__(url, options)
        self._transport: Transport = transport or open_transport(self.settings, is_async=False)

    def infer(
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
        """Ask a model and return its answer.

        Args:
            model: the model's name.
            inputs: numpy arrays by input name; BYTES as arrays of ``bytes`` or ``str``.
            version: the model's version; ``None`` for the one that the server chooses.
            outputs: names of the outputs wanted; empty for all.
            request_id: sent along and written to logs.
            parameters: the model's own parameters.
            priority: Triton's priority level; 0 for the model's default.
            timeout_s: seconds until an answer is there, retries included; ``None`` for the client's ``timeout_s``.

        Raises:
            RequestError: the request breaks a limit or the model's signature, found here or by the server.
            ClientError: there is no answer; the class says what to do.
        """
        request = build_request(
            model=model, inputs=inputs, version=version, outputs=outputs, request_id=request_id,
            parameters=parameters, priority=priority,
        )  # fmt: skip
        return self.send(request, timeout_s=timeout_s)

    def send(self, request: InferRequest, *, timeout_s: float | None = None) -> Answer:
        """Send a request that was built before; see :meth:`infer`."""
        return self._run(self._core.infer(request, timeout_of(timeout_s, self.settings.timeout_s)))

    def stream(
        self,
        model: str,
        inputs: Inputs,
        *,
        version: int | None = None,
        outputs: Iterable[str] = (),
        request_id: str = "",
        parameters: Mapping[str, bool | int | float | str] | None = None,
        timeout_s: float | None = None,
    ) -> Iterator[Answer]:
        """Ask a model that answers with any number of responses, and yield each as it comes.

        Closing the iterator, or leaving a loop over it, cancels the request. Nothing is sent again. Over HTTP the
        request goes to ``generate_stream``, which takes small inputs only, as JSON.

        Args:
            model: the model's name.
            inputs: numpy arrays by input name.
            version: the model's version; ``None`` for the one that the server chooses.
            outputs: names of the outputs wanted; empty for all.
            request_id: sent along and written to logs.
            parameters: the model's own parameters.
            timeout_s: seconds of the whole stream; ``None`` for the client's ``stream_timeout_s``.

        Raises:
            RequestError: the request, or the server's refusal of it.
            ClientError: the stream ended before its end.
        """
        request = build_request(
            model=model, inputs=inputs, version=version, outputs=outputs, request_id=request_id,
            parameters=parameters,
        )  # fmt: skip
        steps = self._core.stream(request, timeout_of(timeout_s, self.settings.stream_timeout_s))
        call, left_s, check = self._run(steps)
        return self._checked(self._transport.stream(call, left_s), check)

    def infer_many(
        self,
        model: str,
        requests: Iterable[Inputs],
        *,
        version: int | None = None,
        concurrency: int = 8,
        timeout_s: float | None = None,
        progress: batch.Progress | None = None,
    ) -> list[Answer]:
        """Ask a model many times, several at a time, and return the answers in the order of the requests.

        Args:
            model: the model's name.
            requests: the inputs of each; an iterator is read as requests are sent.
            version: the model's version; ``None`` for the one that the server chooses.
            concurrency: how many are under way at a time.
            timeout_s: seconds of each request.
            progress: called with the number done and of all (``None`` for an iterator) after each, in this thread.

        Raises:
            BatchError: one or more failed; it names the first by its index and holds all answers and all errors.
        """
        outcomes = batch.Outcomes(len(requests) if isinstance(requests, Sized) else None, progress)
        self._many(model, requests, version, concurrency, timeout_s, outcomes)
        return outcomes.in_order()

    def infer_rows(
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
        """Ask a model about many rows: split by what one request may have, and put together again in order.

        Args:
            model: the model's name.
            inputs: arrays with the rows on axis 0.
            version: the model's version; ``None`` for the one that the server chooses.
            rows_per_request: rows of one request; ``None`` for the model's ``max_batch_size``.
            concurrency: how many requests are under way at a time.
            timeout_s: seconds of each request.
            progress: called with the number of requests done and of all, after each, in this thread.

        Raises:
            BatchError: one or more requests failed; it names the first row of the first, and holds the rest.
        """
        signature = self.signature(model, version=version)
        parts, outcomes = batch.plan_rows(inputs, rows_per_request, signature, model, progress)
        self._many(model, parts, version, concurrency, timeout_s, outcomes)
        return batch.joined(outcomes.in_order())

    @contextlib.contextmanager
    def sequence(
        self,
        model: str,
        *,
        id: int | str | None = None,  # noqa: A002 - Triton's word
        version: int | None = None,
    ) -> Iterator[Sequence]:
        """Open a sequence of a stateful model. Its requests are never sent again.

        Args:
            model: the model's name.
            id: the sequence's number or name; ``None`` for a random number.
            version: the model's version; ``None`` for the one that the server chooses.
        """
        yield Sequence(self, SequenceState({"model": model, "version": version}, id))

    def signature(self, model: str, *, version: int | None = None) -> Signature | None:
        """Read what a model takes and gives from the server; ``None`` where it does not show it to this client."""
        return self._run(self._core.signature(model, version, self.settings.timeout_s))

    def metadata(self, model: str = "", *, version: int | None = None) -> Mapping[str, Any]:
        """Return a model's metadata as the server has it; the server's own without a name."""
        call = Call(kind="metadata" if model else "server_metadata", model=model, version=version)
        return self._run(self._core.document(call, self.settings.timeout_s))

    def is_live(self) -> bool:
        """Tell whether the server answers."""
        return self._run(self._core.is_so(Call(kind="server_live"), self.settings.connect_timeout_s))

    def is_ready(self, model: str = "", *, version: int | None = None) -> bool:
        """Tell whether a model is ready to infer; without a name, whether the server is."""
        call = Call(kind="model_ready" if model else "server_ready", model=model, version=version)
        return self._run(self._core.is_so(call, self.settings.connect_timeout_s))

    def close(self) -> None:
        """Close the connections. May be repeated."""
        self._is_closed = True
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        """Do what the steps ask for."""
        self._check_open()
        try:
            step = next(steps)
            while True:
                if isinstance(step, Pause):
                    time.sleep(step.seconds)
                    step = next(steps)
                    continue
                try:
                    reply = self._transport.send(step.call, step.timeout_s)
                except Failure as failure:
                    step = steps.throw(failure)
                else:
                    step = steps.send(reply)
        except StopIteration as done:
            result: T = done.value
            return result

    def _checked(self, replies: Iterator[Any], check: Any) -> Iterator[Answer]:
        with contextlib.closing(replies):  # type: ignore[type-var]
            try:
                for reply in replies:
                    yield check(reply)
            except Failure as failure:
                raise error_of(failure) from None

    def _many(
        self,
        model: str,
        requests: Iterable[Inputs],
        version: int | None,
        concurrency: int,
        timeout_s: float | None,
        outcomes: batch.Outcomes,
    ) -> None:
        batch.check_many(requests, concurrency, outcomes.progress)

        def one(inputs: Inputs) -> Answer | SafeTritonError:
            try:
                return self.infer(model, inputs, version=version, timeout_s=timeout_s)
            except SafeTritonError as error:
                return error

        pending: dict[Future[Answer | SafeTritonError], int] = {}

        def settle(done: Iterable[Future[Answer | SafeTritonError]]) -> None:
            for future in done:
                outcomes.note(pending.pop(future), future.result())

        with ThreadPoolExecutor(concurrency, "safe_triton.client") as pool:
            for index, inputs in enumerate(requests):
                if len(pending) >= concurrency:
                    settle(wait(pending, return_when=FIRST_COMPLETED).done)
                if outcomes.is_hopeless:
                    break
                pending[pool.submit(one, inputs)] = index
            while pending:
                settle(wait(pending, return_when=FIRST_COMPLETED).done)


class Sequence:
    """The requests of one sequence, in their order; from one thread at a time.

    Attributes:
        id: its number or name.
    """

    def __init__(self, client: SafeTritonClient, state: SequenceState) -> None:
        self._client, self._state = client, state
        self.id = state.id

    def infer(self, inputs: Inputs, *, end: bool = False, timeout_s: float | None = None) -> Answer:
        """Send the next request; the first one starts the sequence, and ``end`` says that it is the last."""
        return self._client.send(self._state.request(inputs, end=end), timeout_s=timeout_s)
