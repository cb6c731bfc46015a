"""One request over either of Triton's protocols, and the answer in the same words for both."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import grpc
import numpy as np
import tritonclient.grpc.aio as grpc_client
import tritonclient.http.aio as http_client
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TIMEOUT_S = 30.0

GRPC_CODES = {
    "StatusCode.INVALID_ARGUMENT": "INVALID_ARG",
    "StatusCode.INTERNAL": "INTERNAL",
    "StatusCode.NOT_FOUND": "NOT_FOUND",
    "StatusCode.UNAVAILABLE": "UNAVAILABLE",
}
HTTP_CODES = {"400": "INVALID_ARG", "500": "INTERNAL", "404": "NOT_FOUND", "503": "UNAVAILABLE"}


@dataclass(frozen=True)
class Request:
    """What to send: a model, its inputs by name (object arrays of bytes are BYTES), request parameters."""

    model: str
    inputs: Mapping[str, np.ndarray]
    parameters: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """What came back; `code` is `OK` or Triton's name of the error, `latency_ms` as the client measured it."""

    code: str
    message: str
    latency_ms: float
    outputs: Mapping[str, np.ndarray] = field(default_factory=dict)


class Wire(Protocol):
    """A protocol to send requests over."""

    name: str

    async def send(self, request: Request) -> Answer:
        """Send one request and wait for its answer; an error is an answer, too."""

    async def close(self) -> None:
        """Close all connections."""


class _Client:
    """What both clients of tritonclient have in common."""

    name = ""
    codes: Mapping[str, str] = {}

    def __init__(self, module: Any, url: str) -> None:
        self.module = module
        self.client = module.InferenceServerClient(url)

    def tensors(self, request: Request) -> list[Any]:
        """Turn arrays into the client's tensors."""
        tensors = []
        for name, array in request.inputs.items():
            tensor = self.module.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
            tensor.set_data_from_numpy(array)
            tensors.append(tensor)
        return tensors

    async def send(self, request: Request) -> Answer:
        """Send one request; an error of the server is an answer, silence is one as well."""
        tensors = self.tensors(request)
        started_s = time.perf_counter()
        code, message, outputs = "OK", "", {}
        try:
            outputs = await asyncio.wait_for(self.receive(request, tensors), TIMEOUT_S)
        except InferenceServerException as error:
            status = str(error.status())
            code, message = self.codes.get(status, status), str(error.message())
        except asyncio.TimeoutError:  # its own class before Python 3.11
            code, message = "SILENCE", f"no answer for {TIMEOUT_S:g} s"
        return Answer(code, message, (time.perf_counter() - started_s) * 1000, outputs)

    async def receive(self, request: Request, tensors: list[Any]) -> dict[str, np.ndarray]:
        """Return the outputs of one request."""
        result = await self.client.infer(request.model, tensors, parameters=dict(request.parameters) or None)
        return as_arrays(result)

    async def close(self) -> None:
        """Close all connections."""
        await self.client.close()


def as_arrays(result: Any) -> dict[str, np.ndarray]:
    """Return all outputs of a result of either client."""
    response = result.get_response()
    if isinstance(response, dict):
        names = [output["name"] for output in response["outputs"]]
    else:
        names = [output.name for output in response.outputs]
    return {name: result.as_numpy(name) for name in names}


class Http(_Client):
    """HTTP, tensors in binary."""

    name = "HTTP"
    codes = HTTP_CODES

    def __init__(self, url: str) -> None:
        super().__init__(http_client, url)


class Grpc(_Client):
    """gRPC, one message for each request."""

    name = "gRPC"
    codes = GRPC_CODES

    def __init__(self, url: str, admin: Mapping[str, str] | None = None) -> None:
        super().__init__(grpc_client, url)
        self.admin = dict(admin or {})

    async def batch_counts(self, model: str) -> tuple[int, int]:
        """Return how often the model was executed, and how many rows these executions had."""
        statistics = await self.client.get_inference_statistics(model, as_json=False, headers=self.admin)
        counts = statistics.model_stats[0]
        return counts.execution_count, counts.inference_count


class GrpcStream(Grpc):
    """gRPC streaming: many responses to one request, joined along axis 0."""

    name = "gRPC stream"

    async def receive(self, request: Request, tensors: list[Any]) -> dict[str, np.ndarray]:
        """Return the outputs of all responses."""

        async def single() -> AsyncIterator[dict[str, Any]]:
            yield {"model_name": request.model, "inputs": tensors, "parameters": dict(request.parameters) or None}

        # Without this header a refusal arrives as text only, without its code.
        responses = self.client.stream_infer(single(), headers={"triton_grpc_error": "true"})
        parts: list[dict[str, np.ndarray]] = []
        try:
            async for result, error in responses:
                if error is not None:
                    raise error
                parts.append(as_arrays(result))
        except grpc.RpcError as error:
            raise InferenceServerException(error.details(), status=str(error.code())) from None
        return {name: np.concatenate([part[name] for part in parts]) for name in (parts[0] if parts else ())}
