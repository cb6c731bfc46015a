"""What goes into a fake model and what a client would see come out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from safe_triton.testing.fake_utils import deserialize_bytes_tensor
from safe_triton.testing.fake_values import InferenceResponse, Tensor

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Request:
    """One request of a client.

    Args:
        inputs: arrays by input name; BYTES as object arrays of bytes or str.
        parameters: request parameters; str, int, float and bool.
        request_id: the client's id.
        correlation_id: the sequence's id.
        flags: ``TRITONSERVER_REQUEST_FLAG_SEQUENCE_START`` and ``…_END``.
        timeout_us: microseconds in the queue, 0 without a bound.
        outputs: names that the client wants; all if none are given.
        is_cancelled: whether the client has gone away.
    """

    inputs: Mapping[str, Array]
    parameters: Mapping[str, str | int | float | bool] | None = None
    request_id: str = ""
    correlation_id: int | str = 0
    flags: int = 0
    timeout_us: int = 0
    outputs: Sequence[str] | None = None
    is_cancelled: bool = False

    def tensors(self, config: Mapping[str, Any]) -> list[Tensor]:
        """The inputs as the model gets them: copies, reshaped as config says, BYTES as object arrays of bytes."""
        shapes = {each["name"]: each["reshape"]["shape"] for each in config["input"] if "reshape" in each}
        tensors = []
        for name, array in self.inputs.items():
            received = as_received(array)
            if config["max_batch_size"] and received.ndim and received.shape[0] == 0:
                received = received.reshape(received.shape[1:])  # the server drops the axis of a batch of no rows
            elif name in shapes:
                rows = received.shape[:1] if config["max_batch_size"] else ()
                received = received.reshape(*rows, *shapes[name])
            tensors.append(Tensor(name, received))
        return tensors

    def parameters_text(self) -> str:
        """The parameters as the model gets them."""
        return json.dumps(dict(self.parameters or {}), separators=(",", ":"))


@dataclass(frozen=True)
class Response:
    """One response of a stream.

    Attributes:
        outputs: arrays by output name; BYTES as object arrays of bytes.
        error: the error's text, None without one.
        code: the error's code such as ``INVALID_ARG``, None without one.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    error: str | None = None
    code: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What the client of one request would see.

    Attributes:
        outputs: arrays by output name, of the only or the last response that has any.
        error: the first error's text; says so, too, when the client would wait for ever. None when all is well.
        code: the first error's code, such as ``INTERNAL``; None without an error and for a client that waits for ever.
        responses: all responses in order; one for an ordinary model.
        hangs: whether the client would wait for ever.
        is_refused: whether the server refused the request before the model saw it.
    """

    outputs: dict[str, Array] = field(default_factory=dict)
    error: str | None = None
    code: str | None = None
    responses: tuple[Response, ...] = ()
    hangs: bool = False
    is_refused: bool = False

    @classmethod
    def refused(cls, text: str) -> Outcome:
        """The server's own refusal."""
        return cls.of([Response(error=text, code="INVALID_ARG")], is_refused=True)

    @classmethod
    def of(cls, responses: Sequence[Response], *, hangs: str = "", is_refused: bool = False) -> Outcome:
        """The outcome of these responses.

        Args:
            responses: in order.
            hangs: why nothing more comes although the client waits; ``""`` when the last response was final.
            is_refused: whether the server answered by itself.
        """
        failed = next((each for each in responses if each.error is not None), None)
        outputs = next((each.outputs for each in reversed(responses) if each.outputs), {})
        error = f"the client would wait for ever: {hangs}" if hangs else failed.error if failed else None
        code = failed.code if failed and not hangs else None
        return cls(outputs, error, code, tuple(responses), bool(hangs), is_refused)


def as_received(array: Array) -> Array:
    """A client's array as a model gets it."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"inputs are numpy arrays, not {type(array).__name__}")
    if array.dtype.kind not in "OSU":
        return np.array(array, order="C")
    received = np.empty(array.shape, dtype=np.object_)
    for index, element in np.ndenumerate(array):
        received[index] = element if isinstance(element, bytes) else str(element).encode()
    return received


def as_seen(response: InferenceResponse) -> Response:
    """A response as the client gets it."""
    error = response.error()
    if error is not None:
        return Response(error=error.message(), code=error.code().name)
    return Response({tensor.name(): _sent(tensor) for tensor in response.output_tensors()})


def _sent(tensor: Tensor) -> Array:
    """An output as the client gets it."""
    array = tensor.as_numpy()
    if array.dtype.kind in "OS":
        return deserialize_bytes_tensor(bytes(tensor._wire or b"")).reshape(array.shape)
    return array.copy()
