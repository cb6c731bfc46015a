"""Call ``execute`` as the stub does and find out what every client would see."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent import futures
from dataclasses import replace
from typing import Any

from safe_triton.testing.fake_requests import Answers, InferenceRequest, incoming
from safe_triton.testing.fake_utils import (
    TRITONSERVER_REQUEST_FLAG_SEQUENCE_START,
    TRITONSERVER_REQUEST_RELEASE_RESCHEDULE,
    TRITONSERVER_RESPONSE_COMPLETE_FINAL,
)
from safe_triton.testing.fake_values import InferenceResponse, ServerAbort, TritonError, TritonModelException
from safe_triton.testing.outcomes import Outcome, Request, as_seen

MAX_RESCHEDULES = 100
_NONE = "execute returned None for it, and nothing is left that could send a response"


class _Pending:
    """A request that ``execute`` was handed: its answers, and whether anyone could still add to them."""

    def __init__(self, request: InferenceRequest, answers: Answers) -> None:
        self.answers = answers
        self._request = weakref.ref(request)
        self._sender: weakref.ref[Any] | None = None

    def note_sender(self) -> None:
        """Look at the sender before the request may go away."""
        request = self._request()
        if request is not None and request._sender is not None:
            self._sender = weakref.ref(request._sender)

    def is_reachable(self) -> bool:
        """Whether the model still holds the request or its sender."""
        return self._request() is not None or (self._sender is not None and self._sender() is not None)


class Execution:
    """Runs one model's ``execute``."""

    def __init__(
        self,
        model: Any,
        config: dict[str, Any],
        args: dict[str, str],
        request_class: type[InferenceRequest],
        *,
        timeout_s: float,
    ) -> None:
        self._model = model
        self._config = config
        self._request_class = request_class
        self._instance = args["model_instance_name"]
        self._version = int(args["model_version"])
        self._timeout_s = timeout_s
        self._is_decoupled = bool(config.get("model_transaction_policy", {}).get("decoupled"))
        self._is_iterative = bool((config.get("sequence_batching") or {}).get("iterative_sequence"))
        self._sequences = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def run(self, requests: Sequence[Request]) -> list[Outcome]:
        """Hand requests to one call of ``execute`` and wait for all answers.

        Args:
            requests: at least one.
        Returns:
            One outcome per request.
        """
        asked = list(requests)
        iterating = [number for number, each in enumerate(asked) if self._is_iterative and not each.correlation_id]
        for number in iterating:  # the server makes a sequence of its own for each
            start = TRITONSERVER_REQUEST_FLAG_SEQUENCE_START
            asked[number] = replace(asked[number], correlation_id=next(self._sequences), flags=start)
        answers = [Answers(is_decoupled=self._is_decoupled) for _ in asked]
        waiting = list(range(len(asked)))
        pending: dict[int, _Pending] = {}
        for _ in range(MAX_RESCHEDULES):
            released = self._call(asked, answers, waiting, pending)
            waiting = [number for number in released if number in iterating]
            if not waiting:
                break
            for number in waiting:
                asked[number] = replace(asked[number], flags=0)
        self._wait(pending)
        return [self._outcome(each) for each in answers]

    def close(self) -> None:
        """Stop the event loop, if there is one."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(self._timeout_s)
            if not self._thread.is_alive():
                self._loop.close()
            self._loop = None

    def _call(
        self, requests: Sequence[Request], answers: list[Answers], numbers: list[int], pending: dict[int, _Pending]
    ) -> list[int]:
        """One call of ``execute``; the numbers of the requests that the model sent back to the scheduler."""
        batch = [self._incoming(requests[number], answers[number]) for number in numbers]
        for number, request in zip(numbers, batch, strict=True):
            pending[number] = _Pending(request, answers[number])
        again: list[int] = []
        try:
            returned = self._model.execute(list(batch))
            if asyncio.iscoroutine(returned):
                future = asyncio.run_coroutine_threadsafe(returned, self._running_loop())
                futures.wait([future], self._timeout_s)
                returned = future.result() if future.done() else None
            again = self._process(returned, batch, numbers)
        except ServerAbort:
            raise
        except BaseException as error:  # noqa: BLE001  # the stub catches sys.exit() and everything else
            self._fail(batch, error)
        for number in numbers:
            pending[number].note_sender()
        return again

    def _incoming(self, request: Request, answers: Answers) -> InferenceRequest:
        """The request as the model sees it."""
        names = request.outputs or [each["name"] for each in self._config["output"]]
        made = incoming(
            self._request_class,
            inputs=request.tensors(self._config),
            request_id=request.request_id,
            correlation_id=request.correlation_id,
            flags=request.flags,
            timeout_us=request.timeout_us,
            parameters=request.parameters_text(),
            outputs=frozenset(names),
            model_name=self._config["name"],
            model_version=self._version,
            is_cancelled=lambda: request.is_cancelled,
        )
        made._answers = answers
        return made

    def _process(self, returned: Any, batch: list[InferenceRequest], numbers: list[int]) -> list[int]:
        """Answer requests with what ``execute`` returned, with the stub's checks."""
        if returned is None:
            return []
        if self._is_decoupled:
            raise _StubError(
                f"Python model '{self._instance}' is using the decoupled mode and the execute function must return "
                "None."
            )
        if not isinstance(returned, list):
            raise _StubError(f"Expected a list in the execute return, found type '{type(returned)}'.")
        if len(returned) != len(batch):
            raise _StubError(
                "Number of InferenceResponse objects do not match the number of InferenceRequest objects. "
                f"InferenceRequest(s) size is:{len(batch)}, and InferenceResponse(s) size is:{len(returned)}\n"
            )
        for request, response in zip(batch, returned, strict=True):  # all of them before the first one is sent
            _check_returned(request, response)
        for request, response in zip(batch, returned, strict=True):
            if response is not None:
                try:
                    InferenceRequest.get_response_sender(request).send(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL)
                except TritonModelException as error:
                    raise _StubError(str(error)) from None
        return [
            number
            for number, request in zip(numbers, batch, strict=True)
            if request._release_flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE
        ]

    def _fail(self, batch: list[InferenceRequest], error: BaseException) -> None:
        """Answer every open request of the batch with the exception's text, as the server does."""
        is_answered = any(each._answers is not None and each._answers.is_closed.is_set() for each in batch)
        if is_answered and not self._is_decoupled and not isinstance(error, _StubError):
            raise ServerAbort(
                "execute raised after a final response had been sent, which ends tritonserver itself (24.10: a double "
                "free)"
            ) from error
        text = f"Failed to process the request(s) for model '{self._instance}', message: {described(error)}"
        for request in batch:
            answers = request._answers
            if answers is not None and not answers.is_closed.is_set():
                answers.responses.append(InferenceResponse(error=TritonError(text)))
                answers.is_closed.set()

    def _wait(self, pending: dict[int, _Pending]) -> None:
        """Wait for answers that come later, as long as anything is left that could send them."""
        until = time.monotonic() + self._timeout_s
        for each in pending.values():
            if each.answers.is_closed.is_set():
                continue
            gc.collect()
            while each.is_reachable() and not each.answers.is_closed.wait(0.005) and time.monotonic() < until:
                pass

    def _outcome(self, answers: Answers) -> Outcome:
        """What the client of one request sees."""
        hangs = "" if answers.is_closed.is_set() else _NONE
        if hangs and answers.count:
            hangs = "no response was marked as the final one"
        if hangs and not self._is_decoupled:
            return Outcome.of([], hangs=hangs)  # the server holds a response back until the final mark
        return Outcome.of([as_seen(each) for each in answers.responses], hangs=hangs)

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop of ``async def execute``, on its own thread, made at the first use."""
        if self._loop is None:
            self._loop = asyncio.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="triton-asyncio", daemon=True)
            self._thread.start()
        return self._loop


class _StubError(Exception):
    """What the stub itself refuses; the client sees its text without a type."""


def _check_returned(request: InferenceRequest, response: object) -> None:
    """Refuse what a returned list may not hold."""
    if response is None:
        return
    if request._release_flags == TRITONSERVER_REQUEST_RELEASE_RESCHEDULE:
        raise _StubError(
            "Expected a None object in the execute function return list for reschduled request, found type "
            f"'{type(response)}'."
        )
    if not isinstance(response, InferenceResponse):
        raise _StubError(
            "Expected an 'InferenceResponse' object in the execute function return list, found type "
            f"'{type(response)}'."
        )


def described(error: BaseException) -> str:
    """An exception as pybind11 words it for the client: type, text and the frames, the innermost first."""
    if isinstance(error, _StubError):
        return str(error)
    try:
        text = str(error) or "<EMPTY MESSAGE>"
    except Exception as other:  # noqa: BLE001  # whatever the author's __str__ raises
        text = "<MESSAGE UNAVAILABLE DUE TO ANOTHER EXCEPTION>"
        again = f"\nMESSAGE UNAVAILABLE DUE TO EXCEPTION: {described(other)}"
    else:
        again = ""
    frames = _frames(error)
    return f"{type(error).__name__}: {text}" + ("\n\nAt:\n" + "".join(frames) if frames else "") + again


def _frames(error: BaseException) -> list[str]:
    """The frame where the exception was raised and its callers, down to this module."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    frame = trace.tb_frame if trace is not None else None
    lines: list[str] = []
    while frame is not None and frame.f_code.co_filename != __file__:
        lines.append(f"  {frame.f_code.co_filename}({frame.f_lineno}): {frame.f_code.co_name}\n")
        frame = frame.f_back
    return lines
