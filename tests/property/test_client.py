"""A client never shows anything but an error of its tree, and what it sends is what it was given."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.grpc import service_pb2

from safe_triton.client import Call, Failure, InferRequest, Reply, Retries
from safe_triton.client import grpc_messages as over_grpc
from safe_triton.client import http_messages as over_http
from safe_triton.client.batch import split_rows
from safe_triton.client.endpoint import parse_url
from safe_triton.client.failures import error_of
from safe_triton.client.request import build_request
from safe_triton.client.transport import Kind
from safe_triton.errors import PolicyError, RequestError, SafeTritonError

NUMPY = {
    "BOOL": bool, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip
SHAPES = arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=4)
NUMBERS = st.sampled_from(list(NUMPY)).flatmap(
    lambda name: st.tuples(st.just(name), arrays.arrays(np.dtype(NUMPY[name]), SHAPES))
)


def _texts(items: list[bytes]) -> Any:
    array = np.empty(len(items), object)
    array[:] = items
    return array


TENSORS = NUMBERS | st.lists(st.binary(max_size=9), max_size=5).map(lambda items: ("BYTES", _texts(items)))
BF16 = arrays.arrays(np.uint16, SHAPES).map(lambda array: ("BF16", array.view(ml_dtypes.bfloat16)))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)


def outcome(do: Callable[[], Any], kind: type[Exception]) -> Any:
    """What something returns, or the error of one kind that it raises."""
    try:
        return do()
    except kind as error:
        return error


def call_of(name: str, array: Any) -> Call:
    request = InferRequest(model="m", inputs={"X": array})
    return Call(kind="infer", model="m", request=request, tensors={"X": (name, array)})


class TestTensors:
    """What arrives is what was sent: data type, shape and every byte."""

    @given(TENSORS | BF16)
    def test_over_grpc(self, tensor: tuple[str, Any]) -> None:
        """The message of a request, read as the message of an answer, gives the same array."""
        name, array = tensor
        message = over_grpc.message_of(call_of(name, array), 1.0)
        (sent,) = message.inputs
        output = service_pb2.ModelInferResponse.InferOutputTensor(name="X", datatype=sent.datatype, shape=sent.shape)
        response = service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=message.raw_input_contents)
        ((found_name, found),) = over_grpc.infer_reply(response).outputs.values()
        assert found_name == name
        assert found.shape == array.shape
        assert found.tolist() == array.tolist() if name == "BYTES" else found.tobytes() == array.tobytes()

    @given(TENSORS | BF16)
    def test_over_http(self, tensor: tuple[str, Any]) -> None:
        """The same of the body of an HTTP request."""
        name, array = tensor
        call = call_of(name, array)
        message = over_http.message_of(call, 1.0)
        length = int(message.headers.get(over_http.HEADER_LENGTH, len(message.body)))
        document = json.loads(message.body[:length])
        header = json.dumps({"outputs": document["inputs"]}).encode()
        headers = {over_http.HEADER_LENGTH: str(len(header))}
        reply = over_http.reply_of(call, header + message.body[length:], headers)
        ((found_name, found),) = reply.outputs.values()
        assert (found_name, found.shape) == (name, array.shape)
        assert found.tolist() == array.tolist() if name == "BYTES" else found.tobytes() == array.tobytes()

    @given(st.integers(1, 40), st.integers(1, 50))
    def test_of_many_rows(self, rows: int, size: int) -> None:
        """Every row is in one part, in order, and no part is too large."""
        whole = np.arange(rows * 2).reshape(rows, 2)
        parts = [part["X"] for part in split_rows({"X": whole}, size)]
        assert max(map(len, parts)) <= size
        assert np.concatenate(parts).tolist() == whole.tolist()


class TestNothingElseEscapes:
    """Whatever a caller writes or a server answers, the error is one of the tree, in one line."""

    @given(st.text(max_size=40) | st.text(max_size=20).map(lambda rest: f"https://{rest}"))
    def test_of_a_url(self, text: str) -> None:
        """Any text is a server's address or is refused as none."""
        found = outcome(lambda: parse_url(text), PolicyError)
        assert isinstance(found, PolicyError) or (found.host and 1 <= found.port <= 65535)

    @given(
        st.dictionaries(st.sampled_from(["model", "inputs", "version", "outputs", "parameters", "sequence", "x"]), JSON)
    )
    def test_of_a_request(self, values: dict[str, Any]) -> None:
        """Any values are a request or are refused as none."""
        found = outcome(lambda: build_request(**values), RequestError)
        assert isinstance(found, InferRequest) or (found.reason == "request.invalid" and "\n" not in found.message)

    @given(
        st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()), st.none() | st.text(max_size=4)
    )
    def test_of_an_answer_over_http(self, body: bytes, header_length: str | None) -> None:
        """Any body is an answer or a failure."""
        headers = {} if header_length is None else {over_http.HEADER_LENGTH: header_length}
        kinds: tuple[Kind, ...] = ("infer", "config", "metadata", "server_live")
        for kind in kinds:
            found = outcome(partial(over_http.reply_of, Call(kind=kind), body, headers), Failure)
            assert isinstance(found, Reply) or isinstance(error_of(found), SafeTritonError)

    @given(st.lists(st.binary(max_size=60) | JSON.map(lambda value: b"data: " + json.dumps(value).encode() + b"\n\n")))
    def test_of_a_stream_over_http(self, chunks: list[bytes]) -> None:
        """Any bytes are events or a failure."""
        events = over_http.Events({"Y": ("FP32", (-1, 2)), "T": ("BYTES", (1,))})
        found = outcome(lambda: [reply for chunk in chunks for reply in events.feed(chunk)], Failure)
        assert isinstance(found, list) or isinstance(error_of(found), SafeTritonError)

    @given(st.sampled_from(["status", "connect", "lost", "timeout", "tls", "answer"]), st.text(), st.text(max_size=20))
    def test_of_an_error(self, cause: Any, text: str, status: str) -> None:
        """Any text of a server becomes one printable line that begins with its reason or is the server's own."""
        error = error_of(Failure(cause, text, status=status))
        assert error.message.isprintable()
        assert error.reason


@given(st.integers(1, 20), st.floats(0, 1), st.integers(1, 10_000), st.integers(1, 10_000))
def test_a_wait_is_bounded(attempt: int, chance: float, first_ms: int, longest_ms: int) -> None:
    """No wait is longer than the longest, nor none at all."""
    delay_s = Retries(first_delay_ms=first_ms, max_delay_ms=longest_ms).delay_s(attempt, chance)
    assert 0 < delay_s <= longest_ms / 1000
