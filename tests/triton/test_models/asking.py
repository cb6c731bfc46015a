"""Ask a model of a running server over either protocol; errors come back as values."""

from __future__ import annotations

import queue
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from safe_triton.server import TritonServer

Array = np.ndarray[Any, Any]

CODES = {
    "StatusCode.INVALID_ARGUMENT": "INVALID_ARG",
    "StatusCode.INTERNAL": "INTERNAL",
    "StatusCode.NOT_FOUND": "NOT_FOUND",
    "StatusCode.UNAVAILABLE": "UNAVAILABLE",
    "400": "INVALID_ARG",
    "500": "INTERNAL",
    "404": "NOT_FOUND",
    "503": "UNAVAILABLE",
}


@dataclass(frozen=True)
class Reply:
    """An answer: Triton's name of the error, or ``OK`` with outputs."""

    code: str
    message: str = ""
    outputs: dict[str, Array] = field(default_factory=dict)


def texts(*items: str | bytes, shape: tuple[int, ...] | None = None) -> Array:
    """Return a BYTES tensor, ``(1, len(items))`` unless a shape is given."""
    array = np.empty(len(items), object)
    array[:] = [item.encode() if isinstance(item, str) else item for item in items]
    return array.reshape(shape or (1, len(items)))


def tensors(module: Any, inputs: Mapping[str, Array]) -> list[Any]:
    """Return the inputs as tensors of one of tritonclient's modules."""
    converted = []
    for name, array in inputs.items():
        tensor = module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
        tensor.set_data_from_numpy(array)
        converted.append(tensor)
    return converted


def failure(error: InferenceServerException) -> Reply:
    """Return a client's exception as a value."""
    return Reply(CODES.get(str(error.status()), str(error.status())), str(error.message()))


class Asker:
    """One protocol's client of one server.

    Args:
        server: a running server.
        protocol: ``grpc`` or ``http``.
    """

    def __init__(self, server: TritonServer, protocol: str) -> None:
        self.module: Any = tritonclient.grpc if protocol == "grpc" else tritonclient.http
        url = server.grpc_url if protocol == "grpc" else server.http_url
        options = {} if protocol == "grpc" else {"concurrency": 8, "network_timeout": 90.0}
        self.client: Any = self.module.InferenceServerClient(url, **options)
        self.is_grpc = protocol == "grpc"

    def __call__(self, model: str, inputs: Mapping[str, Array], **parameters: Any) -> Reply:
        """Send one request and return its answer."""
        try:
            result = self.client.infer(model, tensors(self.module, inputs), parameters=parameters or None)
        except InferenceServerException as error:
            return failure(error)
        return Reply("OK", outputs=self.outputs(result))

    def together(self, model: str, several: list[dict[str, Array]]) -> list[Reply]:
        """Send requests at the same moment and return their answers in order."""
        if self.is_grpc:
            return self._together_grpc(model, several)
        pending = [self.client.async_infer(model, tensors(self.module, inputs)) for inputs in several]
        replies = []
        for one in pending:
            try:
                replies.append(Reply("OK", outputs=self.outputs(one.get_result(timeout=90))))
            except InferenceServerException as error:
                replies.append(failure(error))
        return replies

    def _together_grpc(self, model: str, several: list[dict[str, Array]]) -> list[Reply]:
        arrived: queue.Queue[tuple[int, Reply]] = queue.Queue()

        def callback_for(index: int) -> Any:
            def callback(result: Any, error: InferenceServerException | None) -> None:
                reply = failure(error) if error is not None else Reply("OK", outputs=self.outputs(result))
                arrived.put((index, reply))

            return callback

        for index, inputs in enumerate(several):
            self.client.async_infer(model, tensors(self.module, inputs), callback_for(index))
        return [reply for _, reply in sorted((arrived.get(timeout=90) for _ in several), key=lambda pair: pair[0])]

    def outputs(self, result: Any) -> dict[str, Array]:
        """Return all outputs of a client's result."""
        response = result.get_response()
        listed = response.outputs if self.is_grpc else response["outputs"]
        names = [output.name if self.is_grpc else output["name"] for output in listed]
        return {name: result.as_numpy(name) for name in names}

    def close(self) -> None:
        """Close the connections."""
        self.client.close()
