"""What a client does, without doing it: generators that yield calls and pauses. Sync and async clients run the same.

A generator yields :class:`Send` or :class:`Pause`, is sent the :class:`Reply`, or has the :class:`Failure` thrown into
it, and returns the result.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from safe_triton.client.answer import Answer
from safe_triton.client.failures import error_of, may_retry, meaning_of
from safe_triton.client.request import Array, InferRequest
from safe_triton.client.settings import ClientSettings
from safe_triton.client.signature import (
    Signature,
    Tensors,
    signature_from_config,
    signature_from_metadata,
    unknown_tensors,
)
from safe_triton.client.transport import Call, Failure, Kind, Reply
from safe_triton.errors import AnswerError, ClientAccessError, ClientUsageError, RefusedError, SignatureError
from safe_triton.policy import Limits
from safe_triton.validation.outputs import sent_bytes

REFRESH_S = 1.0
"""Seconds that a signature is believed at least: wrong requests must not become as many questions to the server."""

UNKNOWN_S = 60.0
"""Seconds until a server that shows this caller no metadata is asked again."""


@dataclass(frozen=True)
class Send:
    """Send a call; ``timeout_s`` is what is left of its deadline."""

    call: Call
    timeout_s: float


@dataclass(frozen=True)
class Pause:
    """Wait before the next attempt."""

    seconds: float


_SOURCES: tuple[tuple[Kind, Callable[[Mapping[str, Any], Limits], Signature]], ...] = (
    ("config", signature_from_config),
    ("metadata", signature_from_metadata),
)

T = TypeVar("T")
Steps = Generator[Send | Pause, Any, T]


@dataclass(frozen=True)
class _Known:
    """A signature, and when it was read; ``None`` where the server does not show it."""

    signature: Signature | None
    read_at_s: float


class StreamCheck:
    """Checks the replies of one stream, one after the other.

    Args:
        request: what was asked.
        signature: of its model; ``None`` where the server does not show it.
    """

    def __init__(self, request: InferRequest, signature: Signature | None) -> None:
        self._request = request
        self._signature = signature
        self._responses = 0
        self._total_bytes = 0

    def __call__(self, reply: Reply) -> Answer:
        """Return the answer that a reply is.

        Raises:
            AnswerError: reason ``client.answer``; it is not what the model declares, or the stream is too long.
        """
        signature = self._signature
        if signature is None:
            return _answer(self._request, reply, {name: array for name, (_, array) in reply.outputs.items()})
        outputs = signature.check_answer(reply.outputs, self._request, is_stream=True)
        self._responses += 1
        self._total_bytes += sum(sent_bytes(array) for array in outputs.values())
        for what, actual, allowed in (
            ("responses", self._responses, signature.plan.max_responses),
            ("bytes", self._total_bytes, signature.plan.max_stream_bytes),
        ):
            if actual > allowed:
                raise AnswerError(f"client.answer: {self._request.model}: {actual} > {allowed} {what} of one stream")
        return _answer(self._request, reply, outputs)


@dataclass
class Core:
    """A client's memory and rules; sends nothing itself. Safe to share between threads.

    Args:
        settings: what the client was told.
        clock: seconds, monotonic.
        chance: random numbers from 0 to 1.
    """

    settings: ClientSettings
    clock: Callable[[], float] = time.monotonic
    chance: Callable[[], float] = random.random
    # One assignment per entry, which the interpreter does at once: two threads may both ask the server, that is all.
    _known: dict[tuple[str, int | None], _Known] = field(default_factory=dict)

    def infer(self, request: InferRequest, timeout_s: float) -> Steps[Answer]:
        """Check a request, send it, check its answer."""
        deadline = self.clock() + timeout_s
        signature, call = yield from self._prepared(request, deadline)
        if signature is not None:
            if signature.config.is_decoupled and signature.is_complete:
                raise ClientUsageError(f"client.usage: {request.model!r} answers with a stream: call stream()")
            if signature.config.has_sequences and request.sequence is None:
                raise ClientUsageError(
                    f"client.usage: {request.model!r} keeps a state for each sequence: open one with sequence()"
                )
            deadline = min(deadline, self.clock() + signature.deadline_s)
        reply = yield from self._answered(call, deadline)
        if signature is None:
            return _answer(request, reply, {name: array for name, (_, array) in reply.outputs.items()})
        try:
            outputs = signature.check_answer(reply.outputs, request)
        except AnswerError:
            fresh = yield from self._refreshed(request, signature, deadline)
            if fresh is None:
                raise
            outputs = fresh.check_answer(reply.outputs, request)
        return _answer(request, reply, outputs)

    def stream(self, request: InferRequest, timeout_s: float) -> Steps[tuple[Call, float, StreamCheck]]:
        """Check the request of a stream; return the call, the seconds it may take, and the check of its answers."""
        deadline = self.clock() + timeout_s
        signature, call = yield from self._prepared(request, deadline)
        if signature is not None:
            deadline = min(deadline, self.clock() + signature.stream_deadline_s)
            call = replace(call, declared=signature.row_shapes(request))
        return call, deadline - self.clock(), StreamCheck(request, signature)

    def signature(self, model: str, version: int | None, timeout_s: float) -> Steps[Signature | None]:
        """Return what the model takes and gives, read from the server now."""
        self.check_model(model)
        return (yield from self._read(model, version, self.clock() + timeout_s))

    def document(self, call: Call, timeout_s: float) -> Steps[Mapping[str, Any]]:
        """Send a question about the server or a model."""
        if call.model:
            self.check_model(call.model)
        reply: Reply = yield from self._answered(call, self.clock() + timeout_s)
        return reply.document

    def is_so(self, call: Call, timeout_s: float) -> Steps[bool]:
        """Ask whether the server or a model is live or ready; one that does not answer is not."""
        if call.model:
            self.check_model(call.model)
        try:
            reply: Reply = yield Send(call, timeout_s)
        except Failure as failure:
            if meaning_of(failure) in ("access", "tls", "answer"):
                raise error_of(failure) from None
            return False
        return bool(reply.document.get("is_so"))

    def check_model(self, name: str) -> None:
        """Refuse a model that is not on the list.

        Raises:
            ClientUsageError: reason ``client.model``.
        """
        allowed = self.settings.models
        if allowed != "any" and name not in allowed:
            raise ClientUsageError(
                f"client.model: {name!r} is not among the models of this client: {', '.join(allowed)}",
                reason="client.model",
            )

    def _prepared(self, request: InferRequest, deadline: float) -> Steps[tuple[Signature | None, Call]]:
        if not isinstance(request, InferRequest):
            raise ClientUsageError(f"client.usage: an InferRequest is sent, not {type(request).__name__}")
        self.check_model(request.model)
        signature = yield from self._signature(request.model, request.version, deadline)
        if signature is None:
            limits = self.settings.limits.get(request.model, Limits())
            return None, _call(request, unknown_tensors(request, limits))
        try:
            tensors = signature.check_request(request)
        except SignatureError:
            fresh = yield from self._refreshed(request, signature, deadline)
            if fresh is None:
                raise
            signature, tensors = fresh, fresh.check_request(request)
        return signature, _call(request, tensors)

    def _answered(self, call: Call, deadline: float) -> Steps[Reply]:
        """Send a call until it is answered, may not be sent again, or its time is over."""
        attempt = 0
        while True:
            left = deadline - self.clock()
            attempt += 1
            try:
                if left <= 0:
                    raise Failure("timeout", "the time was over before the request could be sent")
                reply: Reply = yield Send(call, left)
                return reply
            except Failure as failure:
                pause = self._pause_s(call, failure, attempt)
                if pause is None or self.clock() + pause >= deadline:
                    raise error_of(failure, attempts=attempt) from None
            yield Pause(pause)

    def _pause_s(self, call: Call, failure: Failure, attempt: int) -> float | None:
        """Seconds until the next attempt; ``None`` for no further one."""
        is_sequence = call.request is not None and call.request.sequence is not None
        retries = self.settings.retries
        if is_sequence or attempt >= retries.max_attempts:
            return None
        if not may_retry(failure, after_death=retries.after_death):
            return None
        return max(retries.delay_s(attempt, self.chance()), failure.retry_after_s or 0.0)

    def _signature(self, model: str, version: int | None, deadline: float) -> Steps[Signature | None]:
        known = self._known.get((model, version))
        if known is not None and (known.signature is not None or self.clock() < known.read_at_s + UNKNOWN_S):
            return known.signature
        return (yield from self._read(model, version, deadline))

    def _refreshed(self, request: InferRequest, stale: Signature, deadline: float) -> Steps[Signature | None]:
        """Read a signature again because something did not fit; ``None`` if that was done a moment ago."""
        known = self._known.get((request.model, request.version))
        if known is not None and known.signature is not stale:
            return known.signature
        if known is not None and self.clock() < known.read_at_s + REFRESH_S:
            return None
        return (yield from self._read(request.model, request.version, deadline))

    def _read(self, model: str, version: int | None, deadline: float) -> Steps[Signature | None]:
        """Read a model's configuration, or its metadata where the configuration is not for this caller."""
        limits = self.settings.limits.get(model, Limits())
        signature: Signature | None = None
        for kind, compiled in _SOURCES:
            try:
                reply: Reply = yield from self._answered(Call(kind=kind, model=model, version=version), deadline)
            except (RefusedError, ClientAccessError) as error:
                # Metadata may be shown where the configuration is not; if neither is, the server decides alone.
                if error.reason == "client.tls" or (kind == "metadata" and isinstance(error, RefusedError)):
                    raise
                continue
            signature = compiled(reply.document, limits)
            break
        self._known[model, version] = _Known(signature, self.clock())
        return signature


def _call(request: InferRequest, tensors: Tensors) -> Call:
    return Call(kind="infer", model=request.model, version=request.version, request=request, tensors=tensors)


def _answer(request: InferRequest, reply: Reply, outputs: Mapping[str, Array]) -> Answer:
    document = reply.document
    return Answer(
        outputs,
        model=str(document.get("model_name") or request.model),
        version=str(document.get("model_version") or ""),
        request_id=str(document.get("id") or ""),
    )
