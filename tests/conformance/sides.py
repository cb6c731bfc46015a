"""The two sides of a conformance test, with one interface: the fake in this process, and a real tritonserver."""

from __future__ import annotations

import contextlib
import queue
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from safe_triton.policy.sandbox import SandboxPolicy
from safe_triton.testing import FakeModel, Outcome, Request, load_model

REPOSITORY = Path(__file__).parent / "repository"
HANG_S = 1.5
"""How long a client waits for what the fake says never comes, in seconds."""

PATIENCE_S = 60.0
"""How long it waits for everything else: a busy machine is no hanging one."""

QUIET_S = 0.5
"""How long it listens to a stream after an error, which may have been the last response."""

_CODES = {
    "UNKNOWN": "UNKNOWN",
    "INTERNAL": "INTERNAL",
    "NOT_FOUND": "NOT_FOUND",
    "INVALID_ARGUMENT": "INVALID_ARG",
    "UNAVAILABLE": "UNAVAILABLE",
    "UNIMPLEMENTED": "UNSUPPORTED",
    "ALREADY_EXISTS": "ALREADY_EXISTS",
    "CANCELLED": "CANCELLED",
}


@dataclass(frozen=True)
class Seen:
    """What a client saw of one request; equal on both sides when the fake is right."""

    responses: tuple[Any, ...] = ()
    hangs: bool = False

    @property
    def error(self) -> str:
        """The first error's text, ``""`` without one."""
        return self._first_error[0]

    @property
    def code(self) -> str:
        """The first error's code, ``""`` without one."""
        return self._first_error[1]

    @property
    def _first_error(self) -> tuple[str, str]:
        errors = (each[1:] for each in self.responses if isinstance(each, tuple) and each[0] == "error")
        return next(errors, ("", ""))

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """An output of the first response."""
        dtype, shape, values = self.responses[0][name]
        return np.array(values, dtype=dtype).reshape(shape)

    def text(self, name: str) -> str:
        """The only element of a BYTES output of the first response."""
        return bytes(self.array(name).item()).decode()


def plain(array: np.ndarray[Any, Any]) -> tuple[str, tuple[int, ...], Any]:
    """An array as a value that can be compared, NaN as a text because it equals nothing."""
    values = array
    if array.dtype.kind == "f" and np.isnan(array).any():
        values = array.astype(object)
        values[np.isnan(array)] = "nan"
    return str(array.dtype), array.shape, values.tolist()


def cleaned(text: str) -> str:
    """A text without what differs between two runs: where the repository is, addresses."""
    text = re.sub(r"0x[0-9a-f]+", "0x", text.replace(str(REPOSITORY), "REPOSITORY"))
    text = re.sub(r"\n  safe_triton\(\d+\): (execute|awaited|watch)(?=\n)", "", text)  # of a repository view
    return re.sub(r"(/concurrent/futures/_base\.py)\(\d+\)", r"\1", text)  # whether it was waited for is chance


class Side(ABC):
    """One side."""

    name: str

    @abstractmethod
    def send(self, model: str, requests: Sequence[Request], expected: Sequence[Seen] = ()) -> list[Seen]:
        """Send requests that arrive together; ``expected`` says what is waited for, an answer to each where left out."""

    def ask(
        self, model: str, inputs: Mapping[str, np.ndarray[Any, Any]], *, expected: Seen | None = None, **options: Any
    ) -> Seen:
        """Send one request."""
        return self.send(model, [Request(inputs, **options)], [] if expected is None else [expected])[0]


class Fake(Side):
    """Models loaded in this process."""

    name = "fake"

    def __init__(self, repository: Path = REPOSITORY) -> None:
        self._repository = repository
        self._stack = contextlib.ExitStack()
        self._models: dict[str, FakeModel] = {}

    def model(self, name: str) -> FakeModel:
        """The loaded model."""
        if name not in self._models:
            folder = self._repository / name
            loading = load_model(folder / "1" / "model.py", folder / "config.pbtxt", timeout_s=PATIENCE_S)
            self._models[name] = self._stack.enter_context(loading)
        return self._models[name]

    def send(self, model: str, requests: Sequence[Request], expected: Sequence[Seen] = ()) -> list[Seen]:
        fake = self.model(model)
        is_decoupled = bool(fake.config.get("model_transaction_policy", {}).get("decoupled"))
        return [self._seen(each, is_decoupled) for each in fake.execute(requests)]

    def close(self) -> None:
        """Finalize every model."""
        self._stack.close()

    @staticmethod
    def _seen(outcome: Outcome, is_decoupled: bool) -> Seen:
        responses = [
            ("error", cleaned(each.error), None if is_decoupled else each.code)
            if each.error is not None
            else {name: plain(array) for name, array in each.outputs.items()}
            for each in outcome.responses
        ]
        return Seen(tuple(responses), outcome.hangs)


class Real(Side):
    """Models on a real server, asked over gRPC."""

    name = "real"

    def __init__(self, grpc_url: str) -> None:
        import tritonclient.grpc as client

        self._client = client
        self._url = grpc_url
        self._connection = client.InferenceServerClient(grpc_url)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def is_decoupled(self, model: str) -> bool:
        """Whether a model streams."""
        config = self._connection.get_model_config(model).config
        return bool(config.model_transaction_policy.decoupled)

    def send(self, model: str, requests: Sequence[Request], expected: Sequence[Seen] = ()) -> list[Seen]:
        if self.is_decoupled(model):
            wanted: Sequence[Seen | None] = expected or [None] * len(requests)
            return [self._streamed(model, each, seen) for each, seen in zip(requests, wanted, strict=True)]
        answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
        calls = [
            self._connection.async_infer(
                model,
                callback=partial(_put_numbered, answers, number),
                client_timeout=2 * PATIENCE_S,
                **self._arguments(each),
            )
            for number, each in enumerate(requests)
        ]
        seen = [Seen(hangs=True)] * len(requests)
        least = len(requests) - sum(each.hangs for each in expected)
        with contextlib.suppress(queue.Empty):
            for count in range(len(requests)):
                number, result, error = answers.get(timeout=PATIENCE_S if count < least else HANG_S)
                seen[number] = Seen((self._response(result, error),))
        for call in calls:
            call.cancel()
        return seen

    def _streamed(self, model: str, request: Request, expected: Seen | None) -> Seen:
        """All responses of one request; the final one may be empty."""
        answers: queue.Queue[Any] = queue.Queue()
        responses: list[Any] = []
        has_failed = False
        with self._client.InferenceServerClient(self._url) as connection:
            connection.start_stream(callback=partial(_put, answers))
            connection.async_stream_infer(model, enable_empty_final_response=True, **self._arguments(request))
            while True:
                is_complete = expected is None or len(responses) >= len(expected.responses)
                if has_failed and is_complete:
                    patience_s = QUIET_S
                else:
                    patience_s = HANG_S if expected is not None and expected.hangs and is_complete else PATIENCE_S
                try:
                    result, error = answers.get(timeout=patience_s)
                except queue.Empty:
                    connection.stop_stream(cancel_requests=True)
                    return Seen(tuple(responses), hangs=not has_failed)
                if error is not None:  # a stream says neither the code nor whether that was all
                    responses.append(("error", cleaned(error.message()), None))
                    has_failed = True
                    continue
                response = result.get_response()
                if response.outputs:
                    responses.append(self._response(result, None))
                if response.parameters["triton_final_response"].bool_param:
                    connection.stop_stream()
                    return Seen(tuple(responses))

    def _arguments(self, request: Request) -> dict[str, Any]:
        """The client's arguments for a request."""
        inputs = []
        for name, array in request.inputs.items():
            made = self._client.InferInput(name, array.shape, self._datatype(array))
            made.set_data_from_numpy(array)
            inputs.append(made)
        arguments: dict[str, Any] = {"inputs": inputs}
        if request.outputs is not None:
            arguments["outputs"] = [self._client.InferRequestedOutput(name) for name in request.outputs]
        if request.parameters:
            arguments["parameters"] = dict(request.parameters)
        if request.request_id:
            arguments["request_id"] = request.request_id
        if request.correlation_id:
            arguments |= {
                "sequence_id": request.correlation_id,
                "sequence_start": bool(request.flags & 1),
                "sequence_end": bool(request.flags & 2),
            }
        if request.timeout_us:
            arguments["timeout"] = request.timeout_us
        return arguments

    @staticmethod
    def _datatype(array: np.ndarray[Any, Any]) -> str:
        from tritonclient.utils import np_to_triton_dtype

        return str(np_to_triton_dtype(array.dtype))

    def _response(self, result: Any, error: Any) -> Any:
        if error is not None:
            status = str(error.status() or "UNKNOWN").removeprefix("StatusCode.")
            return "error", cleaned(error.message()), _CODES.get(status, status)
        names = [each.name for each in result.get_response().outputs]
        try:
            return {name: plain(result.as_numpy(name)) for name in names}
        except ValueError as undecodable:
            return "undecodable", str(undecodable)


class Viewed(Real):
    """Models on a real server, each confined and served by way of a repository view."""

    name = "viewed"


def open_real(name: str, servers: Any, repository: Path = REPOSITORY) -> Real:
    """Open the side ``real`` or ``viewed`` of a repository."""
    if name == "real":
        return Real(servers(repository).grpc_url)
    return Viewed(servers(repository, view=True, confinement=SandboxPolicy()).grpc_url)


def _put(answers: queue.Queue[Any], result: Any, error: Any) -> None:
    """Keep what a client's callback got."""
    answers.put((result, error))


def _put_numbered(answers: queue.Queue[Any], number: int, result: Any, error: Any) -> None:
    """The same, with the number of the request."""
    answers.put((number, result, error))
