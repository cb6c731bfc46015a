"""Stand-ins for requests and response senders."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from safe_triton.testing.fake_calls import answers_of
from safe_triton.testing.fake_utils import TRITONSERVER_RESPONSE_COMPLETE_FINAL
from safe_triton.testing.fake_values import (
    CAST_ERROR,
    MODULE,
    InferenceResponse,
    PreferredMemory,
    ServerAbort,
    Tensor,
    TritonModelException,
    as_text,
    bound,
    is_text,
    no_constructor,
    refuse_call,
)

_NAMES = (
    "request_id", "correlation_id", "inputs", "requested_output_names", "model_name", "model_version", "flags",
    "timeout", "preferred_memory", "trace", "parameters",
)  # fmt: skip
_SIGNATURE = (
    f"{MODULE}.InferenceRequest(request_id: str = '', correlation_id: object = 0, inputs: "
    "List[triton::backend::python::PbTensor], requested_output_names: List[str], model_name: str, "
    "model_version: int = -1, "
    f"flags: int = 0, timeout: int = 0, preferred_memory: {MODULE}.PreferredMemory = {{memory!r}}, trace: "
    f"{MODULE}.InferenceTrace = {{trace!r}}, parameters: object = None)"
)


class InferenceTrace:
    """A request's trace; never active here."""

    __module__ = MODULE
    __slots__ = ("__weakref__",)
    __init__ = no_constructor("InferenceTrace")

    def get_context(self) -> None:
        """No context: tracing is off."""
        return


class Answers:
    """What a request has been answered with, and whether that was all."""

    def __init__(self, *, is_decoupled: bool) -> None:
        self.is_decoupled = is_decoupled
        self.responses: list[InferenceResponse] = []
        self.is_closed = threading.Event()
        self.count = 0
        self.lock = threading.Lock()


class InferenceResponseSender:
    """Sends the responses of one request, from any thread, also after ``execute`` returned."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_answers", "_is_cancelled", "_outputs")
    _answers: Answers | None
    _is_cancelled: Callable[[], bool]
    _outputs: frozenset[str] | None
    __init__ = no_constructor("InferenceResponseSender")

    def is_cancelled(self) -> bool:
        """Whether the client has gone away."""
        return self._is_cancelled()

    def send(self, *args: Any, **kwargs: Any) -> None:
        """Send a response, the mark of the last one, or both."""
        given = bound(("response", "flags"), args, kwargs)
        response = given.get("response") if given is not None else None
        flags = given.get("flags", 0) if given is not None else None
        if not (response is None or isinstance(response, InferenceResponse)) or not _is_unsigned(flags):
            refuse_call(
                "send(): incompatible function",
                f"(self: {MODULE}.InferenceResponseSender, response: {MODULE}.InferenceResponse = None, flags: int = 0)"
                " -> None",
                (self, *args),
                kwargs,
            )
        if flags not in (0, TRITONSERVER_RESPONSE_COMPLETE_FINAL):
            raise TritonModelException("Unable to send response. Unsupported flag provided.")
        if flags == 0 and response is None:
            raise TritonModelException(
                "Inference Response object must be provided when the response flags is set to zero."
            )
        self._record(response, is_final=flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL)

    def _record(self, response: InferenceResponse | None, *, is_final: bool) -> None:
        """Keep the response, unless the real sender would refuse it."""
        answers = self._answers
        if answers is None:
            raise TritonModelException(
                "Unable to send response. Response sender has no reference to the decoupled state of the model."
            )
        with answers.lock:
            if not answers.is_decoupled:
                if response is not None and answers.count > 0:
                    raise TritonModelException(
                        "Unable to send response. Non-decoupled model cannot send more than one response."
                    )
                if response is None and is_final and answers.count == 0:
                    raise TritonModelException(
                        "Unable to send response. Non-decoupled model cannot send complete final before sending a "
                        "response."
                    )
            if answers.is_closed.is_set():
                raise TritonModelException("Unable to send response. Response sender has been closed.")
            answers.count += 1
            if response is not None:
                if self._outputs:  # the real one drops, in the object itself, what the client did not ask for
                    response._output_tensors = [
                        each for each in response._output_tensors if each.name() in self._outputs
                    ]
                answers.responses.append(response)
            if is_final:
                answers.is_closed.set()


class InferenceRequest:
    """A request: one that a client sent, or one that a model makes for another model (BLS)."""

    __module__ = MODULE
    __slots__ = (
        "__weakref__", "_answers", "_correlation_id", "_flags", "_inputs", "_is_cancelled", "_memory",
        "_model_name", "_model_version", "_outputs", "_parameters", "_release_flags", "_request_id", "_sender",
        "_timeout", "_trace",
    )  # fmt: skip

    models: ClassVar[Mapping[str, Any]] = {}
    """The other models that a model can call; each model under test has a class of its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        given = bound(_NAMES, args, kwargs)
        if given is None or not _fits(given):
            trace: InferenceTrace = object.__new__(InferenceTrace)
            memory = object.__new__(PreferredMemory)
            signature = _SIGNATURE.format(memory=memory, trace=trace)
            refuse_call("__init__(): incompatible constructor", signature, args, kwargs)
        self._correlation_id = _correlation(given.get("correlation_id", 0))
        self._parameters = _parameters(given.get("parameters"))
        self._request_id = as_text(given.get("request_id", ""))
        self._inputs: list[Tensor] = list(given["inputs"])
        if any(each is None for each in self._inputs):
            raise TritonModelException(
                f"Input tensor for request with id '{self._request_id}' and model name "
                f"'{as_text(given['model_name'])}' should not be empty."
            )
        self._outputs = frozenset(as_text(each) for each in given["requested_output_names"])
        self._model_name = as_text(given["model_name"])
        self._model_version = given.get("model_version", -1)
        self._flags = given.get("flags", 0)
        self._timeout = given.get("timeout", 0)
        self._trace: InferenceTrace = given.get("trace") or object.__new__(InferenceTrace)
        self._release_flags = 1
        self._answers: Answers | None = None
        self._sender: InferenceResponseSender | None = None
        self._is_cancelled: Callable[[], bool] | None = None

    def inputs(self) -> list[Tensor]:
        """The input tensors, a new list of the same objects each time."""
        return list(self._inputs)

    def request_id(self) -> str:
        """The client's id of the request, ``""`` without one."""
        return self._request_id

    def correlation_id(self) -> int | str:
        """The sequence's id, 0 without one."""
        return self._correlation_id

    def flags(self) -> int:
        """Sequence flags."""
        return int(self._flags)

    def set_flags(self, flags: int) -> None:
        """Set sequence flags."""
        if not _is_unsigned(flags):
            refuse_call(
                "set_flags(): incompatible function",
                f"(self: {MODULE}.InferenceRequest, arg0: int) -> None",
                (self, flags),
                {},
            )
        self._flags = flags

    def set_release_flags(self, flags: int) -> None:
        """Say whether the server gets the request back (ALL) or sends it again later (RESCHEDULE)."""
        if not _is_unsigned(flags):
            refuse_call(
                "set_release_flags(): incompatible function",
                f"(self: {MODULE}.InferenceRequest, arg0: int) -> None",
                (self, flags),
                {},
            )
        if self._is_cancelled is None:
            raise ServerAbort("set_release_flags() of a request that the model made itself ends the model's process")
        self._release_flags = flags

    def timeout(self) -> int:
        """Microseconds that the request may wait in the queue; 0 without a bound."""
        return int(self._timeout)

    def parameters(self) -> str:
        """The parameters, as the text of a JSON object."""
        return self._parameters

    def requested_output_names(self) -> set[str]:
        """The outputs that the client wants."""
        return set(self._outputs)

    def trace(self) -> InferenceTrace:
        """The request's trace."""
        return self._trace

    def get_response_sender(self) -> InferenceResponseSender:
        """The sender for this request's responses, the same one each time."""
        if self._sender is None:
            sender: InferenceResponseSender = object.__new__(InferenceResponseSender)
            sender._answers = self._answers
            sender._is_cancelled = self.is_cancelled
            sender._outputs = self._outputs
            self._sender = sender
        return self._sender

    def is_cancelled(self) -> bool:
        """Whether the client has gone away."""
        if self._is_cancelled is None:  # a request that the model made itself has no counterpart in the server
            raise ServerAbort("is_cancelled() of a request that the model made itself ends tritonserver")
        return self._is_cancelled()

    def exec(self, decoupled: bool = False) -> Any:
        """Send the request to another model and wait."""
        responses = self._call()
        return ResponseIterator(responses) if decoupled else responses[0]

    def async_exec(self, decoupled: bool = False) -> Any:
        """Send the request to another model; an awaitable of what `exec` gives."""
        return asyncio.get_running_loop().run_in_executor(None, self.exec, decoupled)

    def _call(self) -> list[InferenceResponse]:
        """The responses of the model that the request names."""
        return answers_of(self, type(self).models)


class ResponseIterator:
    """The responses of a decoupled model that was called."""

    __module__ = MODULE
    __slots__ = ("__weakref__", "_responses")

    def __init__(self, responses: Sequence[InferenceResponse]) -> None:
        self._responses = list(responses)

    def __iter__(self) -> Iterator[InferenceResponse]:
        return iter(self._responses)


def incoming(
    request_class: type[InferenceRequest],
    *,
    inputs: Sequence[Tensor],
    request_id: str,
    correlation_id: int | str,
    flags: int,
    timeout_us: int,
    parameters: str,
    outputs: frozenset[str],
    model_name: str,
    model_version: int,
    is_cancelled: Callable[[], bool],
) -> InferenceRequest:
    """A request as the server hands it to ``execute``."""
    request = request_class(
        request_id=request_id,
        correlation_id=correlation_id,
        inputs=list(inputs),
        requested_output_names=sorted(outputs),
        model_name=model_name,
        model_version=model_version,
        flags=flags,
        timeout=timeout_us,
    )
    request._parameters = parameters
    request._is_cancelled = is_cancelled
    return request


def _is_unsigned(value: object) -> bool:
    """Whether pybind11 takes the value as a 32-bit unsigned number."""
    return isinstance(value, int) and 0 <= value < 1 << 32


def _fits(given: dict[str, Any]) -> bool:
    """Whether the arguments fit the signature."""
    inputs, outputs = given.get("inputs"), given.get("requested_output_names")
    return (
        isinstance(inputs, list | tuple)
        and all(each is None or isinstance(each, Tensor) for each in inputs)
        and isinstance(outputs, list | tuple)
        and all(is_text(each) for each in outputs)
        and given.get("correlation_id", 0) is not None
        and is_text(given.get("model_name"))
        and is_text(given.get("request_id", ""))
        and isinstance(given.get("model_version", -1), int)
        and _is_unsigned(given.get("flags", 0))
        and isinstance(given.get("timeout", 0), int)
        and isinstance(given.get("preferred_memory"), PreferredMemory | None)
        and isinstance(given.get("trace"), InferenceTrace | None)
    )


def _correlation(value: object) -> int | str:
    """The correlation id, or the real one's refusal."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        if not 0 <= value < 1 << 64:
            raise RuntimeError(CAST_ERROR)
        return int(value)
    raise TritonModelException("Correlation ID must be integer or string")


def _parameters(value: object) -> str:
    """The parameters as JSON text, or the real one's refusal."""
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise TritonModelException(f"Expect N8pybind114dictE, got {type(value)}")
    for key, each in value.items():
        if not isinstance(key, str):
            raise TritonModelException(f"Expect parameters keys to have type str, found type {type(key)}")
        if not isinstance(each, bool | int | str):
            raise TritonModelException(f"Expect parameters values to have type bool/int/str, found type {type(each)}")
    return json.dumps(value)
