"""Requests over a gRPC stream, for models with any number of responses to one request; needs tritonclient."""

from __future__ import annotations

import queue
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import tritonclient.grpc as client
from tritonclient.utils import triton_to_np_dtype

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

_SHOWN_CHARACTERS = 300
_FINAL = "triton_final_response"
_SEQUENCE = ("sequence_id", "sequence_start", "sequence_end")


class Stream:
    """One stream to one model, open inside ``with``.

    Args:
        url: ``host:port`` of Triton's gRPC API.
        model: the model's name.
    """

    def __init__(self, url: str, model: str) -> None:
        self._model = model
        self._client = client.InferenceServerClient(url)
        self._answers: queue.Queue[tuple[Any, Any]] = queue.Queue()

    def __enter__(self) -> Self:
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.stop_stream(cancel_requests=True)
        self._client.close()

    def send(self, document: dict[str, Any], binary: bytes, timeout_s: float) -> str:
        """Send one request and wait for its last response; return why it failed, empty when it did not."""
        try:
            inputs = _inputs(document, binary)
        except (KeyError, TypeError, ValueError) as error:
            return f"the request cannot be sent over gRPC: {error!r}"
        parameters = document.get("parameters") or {}
        sequence = {name: parameters[name] for name in _SEQUENCE if name in parameters}
        self._client.async_stream_infer(self._model, inputs, enable_empty_final_response=True, **sequence)
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                result, problem = self._answers.get(timeout=max(0.0, deadline_s - time.monotonic()))
            except queue.Empty:
                return f"no last answer within {timeout_s:g} s"
            if problem is not None:
                return str(problem)[:_SHOWN_CHARACTERS]
            if result.get_response().parameters[_FINAL].bool_param:
                return ""


def _inputs(document: dict[str, Any], binary: bytes) -> list[Any]:
    inputs = []
    for row in document["inputs"]:
        tensor = client.InferInput(row["name"], row["shape"], row["datatype"])
        size = (row.get("parameters") or {}).get("binary_data_size")
        kind = triton_to_np_dtype(row["datatype"])
        if size is not None:
            array, binary = np.frombuffer(binary[:size], dtype=kind), binary[size:]
        elif row["datatype"] == "BYTES":
            array = np.array([text.encode() for text in row["data"]], dtype=np.object_)
        else:
            array = np.array(row["data"], dtype=kind)
        tensor.set_data_from_numpy(array.reshape(row["shape"]))
        inputs.append(tensor)
    return inputs
