"""The v2 protocol over HTTP: bodies written and read by tritonclient, paths and errors here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput, InferResult

from safe_triton.client.request import Array
from safe_triton.client.transport import Call, Failure, Reply, seconds_of, stream_failure
from safe_triton.config import DTYPES
from safe_triton.errors import ClientUsageError

if TYPE_CHECKING:
    from safe_triton.client.settings import ClientSettings

MICROSECONDS = 1_000_000

HEADER_LENGTH = "inference-header-content-length"

MAX_STREAM_ELEMENTS = 1 << 16
"""Elements of all inputs of a stream over HTTP, which has no binary form: Triton parses them as JSON."""

MAX_EVENT_BYTES = 64 << 20
"""Bytes of one event of a stream."""

MAX_ERROR_BYTES = 64 << 10
"""Bytes of an error's body that are read."""

COMMON_HEADERS = {"accept-encoding": "identity", "user-agent": "safe-triton"}
"""Of every request: a compressed answer could be larger than it looks."""

OK = 200

_NAMES = ("model_name", "model_version", "id")
_GUESSED = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}
_NUMPY = {dtype.name: dtype.numpy for dtype in DTYPES.values()}


@dataclass(frozen=True)
class Message:
    """One HTTP request: method, path below the server's address, body and headers of its own."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]


def message_of(call: Call, timeout_s: float) -> Message:
    """Return the HTTP request of a call."""
    if call.request is not None:
        return _infer_message(call, timeout_s)
    paths = {
        "server_live": "/v2/health/live",
        "server_ready": "/v2/health/ready",
        "server_metadata": "/v2",
        "model_ready": f"{_model_path(call)}/ready",
        "metadata": _model_path(call),
        "config": f"{_model_path(call)}/config",
    }
    return Message("GET", paths[call.kind], b"", {})


def hint_of(message: Message, settings: ClientSettings) -> str:
    """What to look at where a server ends a connection without a word: at a question, as is asked first."""
    if message.method != "GET":
        return ""
    if settings.endpoint.is_encrypted:
        return " (or does the server ask for a client certificate, or not accept this one?)"
    return " (or is it a port with TLS? then https://)"


def _model_path(call: Call) -> str:
    version = f"/versions/{call.version}" if call.version is not None else ""
    return f"/v2/models/{quote(call.model, safe='')}{version}"


def _infer_message(call: Call, timeout_s: float) -> Message:
    request = call.inference
    inputs = []
    for name, (dtype_name, array) in call.tensors.items():
        tensor = InferInput(name, list(array.shape), dtype_name)
        tensor.set_data_from_numpy(array)
        inputs.append(tensor)
    sequence = request.sequence
    body, json_bytes = InferenceServerClient.generate_request_body(
        inputs,
        outputs=[InferRequestedOutput(name) for name in request.outputs] or None,
        request_id=request.request_id,
        sequence_id=sequence.id if sequence else 0,
        sequence_start=bool(sequence and sequence.start),
        sequence_end=bool(sequence and sequence.end),
        priority=request.priority,
        # How long the request may wait in the server's queue: it does not end work that has begun.
        timeout=max(1, int(timeout_s * MICROSECONDS)),
        parameters=request.parameters or None,
    )
    headers = {"content-type": "application/octet-stream"}
    if json_bytes is not None:
        headers[HEADER_LENGTH] = str(json_bytes)
    return Message("POST", f"{_model_path(call)}/infer", body, headers)


def stream_message(call: Call) -> Message:
    """Return the HTTP request of a stream: Triton's ``generate_stream``, whose tensors are JSON.

    Raises:
        ClientUsageError: reason ``client.stream``; what JSON cannot carry, or what this extension has no place for.
    """
    request = call.inference
    for what, is_given in (
        ("a request_id", bool(request.request_id)),
        ("a list of outputs", bool(request.outputs)),
        ("a sequence", request.sequence is not None),
        ("a priority", bool(request.priority)),
    ):
        if is_given:
            raise _no_stream(f"{what} cannot be given")
    elements = sum(array.size for _, array in call.tensors.values())
    if elements > MAX_STREAM_ELEMENTS:
        raise _no_stream(f"inputs of at most {MAX_STREAM_ELEMENTS} elements can be sent, not {elements}")
    document: dict[str, Any] = {name: _json_of(name, *tensor) for name, tensor in call.tensors.items()}
    if request.parameters:
        document["parameters"] = request.parameters
    try:
        body = json.dumps(document, allow_nan=False).encode()
    except ValueError:
        raise _no_stream("NaN and infinities cannot be sent") from None
    headers = {"content-type": "application/json", "accept": "text/event-stream"}
    return Message("POST", f"{_model_path(call)}/generate_stream", body, headers)


def _json_of(name: str, dtype_name: str, array: Array) -> Any:
    values = array.ravel().tolist()
    if dtype_name == "BYTES":
        try:
            values = [value.decode() for value in values]
        except UnicodeDecodeError:
            raise _no_stream(f"texts must be UTF-8, unlike inputs[{name!r}]") from None
    return values


def _no_stream(text: str) -> ClientUsageError:
    return ClientUsageError(f"client.stream: over HTTP, {text}; use grpc", reason="client.stream")


def reply_of(call: Call, body: bytes, headers: Mapping[str, str]) -> Reply:
    """Return what a response with status 200 holds.

    Raises:
        Failure: cause ``answer``; a body that is not of the protocol.
    """
    if call.kind in ("server_live", "server_ready", "model_ready"):
        return Reply(document={"is_so": True})
    try:
        if call.kind == "infer":
            return _infer_reply(body, headers.get(HEADER_LENGTH))
        document = json.loads(body)
        if not isinstance(document, dict):
            raise TypeError
        return Reply(document=document)
    except Exception:  # noqa: BLE001 - tritonclient reads a hostile answer with whatever error comes
        raise Failure("answer", "the answer is not of the v2 protocol", status=str(OK)) from None


def _infer_reply(body: bytes, header_length: str | None) -> Reply:
    length = None if header_length is None else int(header_length)
    result = InferResult.from_response_body(body, header_length=length)
    document = result.get_response()
    outputs: dict[str, tuple[str, Array]] = {}
    for output in document["outputs"]:
        name = output["name"]
        array = np.asarray(result.as_numpy(name))
        if name in outputs or array.shape != (*output["shape"],):
            raise ValueError
        outputs[name] = (output["datatype"], array)
    return Reply(outputs=outputs, document={key: document.get(key) for key in ("model_name", "model_version", "id")})


def failure_of(status: int, body: bytes, headers: Mapping[str, str]) -> Failure:
    """Return the failure that a response with another status than 200 stands for.

    Args:
        status: HTTP's number.
        body: the beginning of its body: Triton's JSON, an event of a stream, or a proxy's text.
        headers: by name in lower case.
    """
    text = body.decode("utf-8", "replace").strip()
    text = text.removeprefix("data:").strip()
    try:
        document = json.loads(text)
        text = str(document["error"]) if isinstance(document, dict) and "error" in document else text
    except (ValueError, RecursionError):
        pass
    return Failure("status", text, status=str(status), retry_after_s=seconds_of(headers.get("retry-after", "")))


class Events:
    """Splits the bytes of a stream into its events and reads each as a reply.

    Args:
        declared: data type and shape by output name; one axis may be -1.
    """

    def __init__(self, declared: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
        self._declared = declared
        self._rest = b""

    def feed(self, chunk: bytes) -> Iterator[Reply]:
        """Take the next bytes and yield what they complete.

        Raises:
            Failure: the server's error, or cause ``answer``.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise Failure("answer", f"an event of more than {MAX_EVENT_BYTES} bytes", status=str(OK))
        for line in lines:
            if line.startswith(b"data:"):
                yield self._reply(line[len(b"data:") :])

    def _reply(self, text: bytes) -> Reply:
        try:
            document = json.loads(text)
            if not isinstance(document, dict):
                raise TypeError
            if "error" in document:
                raise stream_failure(str(document["error"]))
            values = {name: value for name, value in document.items() if name not in _NAMES}
            return Reply(
                outputs={name: self._tensor(name, value) for name, value in values.items()},
                document={name: document.get(name) for name in _NAMES},
            )
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError):
            raise Failure("answer", "an event is not what the model declares", status=str(OK)) from None

    def _tensor(self, name: str, value: object) -> tuple[str, Array]:
        """One output: JSON holds its elements in order, one of them without a list."""
        elements: list[Any] = value if isinstance(value, list) else [value]
        dtype_name, shape = self._declared.get(name) or (_GUESSED[type(elements[0])], (-1,))
        if dtype_name == "BYTES":
            elements = [element.encode() for element in elements]
        array = np.array(elements, dtype=_numpy_dtype(dtype_name))
        return dtype_name, array.reshape(shape)


def _numpy_dtype(name: str) -> Any:
    if name == "BF16":
        from tritonclient.utils import triton_to_np_dtype

        return triton_to_np_dtype(name)
    return _NUMPY[name]
