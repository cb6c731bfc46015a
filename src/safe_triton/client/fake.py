"""A server without a network, for tests of code that uses a client."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from safe_triton.client.request import Array
from safe_triton.client.transport import Call, Failure, Reply
from safe_triton.config import ModelConfig

Inputs = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class FakeModel:
    """A model behind a :class:`FakeTransport`.

    Args:
        config: its configuration, as a dict with the names of ``config.pbtxt``.
        infer: from inputs to outputs by name; for a decoupled model, to an iterable of them.
        is_shown: whether the server shows its configuration and metadata to this client.
    """

    config: Mapping[str, Any]
    infer: Callable[[Inputs], Any]
    is_shown: bool = True


@dataclass
class FakeTransport:
    """Answers calls from Python functions: what a client sends is checked as on the wire, and nothing leaves.

    Args:
        models: by name.
        failures: raised one after the other by the next inferences, before any is answered.

    Attributes:
        calls: every call, in order.

    Does not cover:
        What Triton itself checks, and queues, batches or restarts: see ``safe_triton.testing.triton_server``.
    """

    models: Mapping[str, FakeModel]
    failures: Iterable[Failure] = ()
    calls: list[Call] = field(default_factory=list)
    is_closed: bool = False

    def __post_init__(self) -> None:
        self._failures = iter(self.failures)
        self._lock = threading.Lock()

    def send(self, call: Call, timeout_s: float) -> Reply:  # noqa: ARG002 - the seam's
        """Answer one call."""
        with self._lock:
            self.calls.append(call)
            failure = next(self._failures, None) if call.kind == "infer" else None
        if failure is not None:
            raise failure
        if call.kind == "server_metadata":
            return Reply(document={"name": "fake", "version": "0", "extensions": []})
        if call.kind in ("server_live", "server_ready"):
            return Reply(document={"is_so": True})
        model = self._model(call)
        if call.kind == "model_ready":
            return Reply(document={"is_so": True})
        if call.kind in ("config", "metadata"):
            if not model.is_shown:
                raise Failure("status", "not shown to this client", status="PERMISSION_DENIED")
            return Reply(document=model.config if call.kind == "config" else metadata_of(model.config))
        return self._reply(call, model, model.infer(_arrays(call)))

    def stream(self, call: Call, timeout_s: float) -> Iterator[Reply]:  # noqa: ARG002 - the seam's
        """Answer one call with a stream."""
        with self._lock:
            self.calls.append(call)
            failure = next(self._failures, None)
        if failure is not None:
            raise failure
        model = self._model(call)
        for outputs in model.infer(_arrays(call)):
            yield self._reply(call, model, outputs)

    def close(self) -> None:
        """Note that the client is closed."""
        self.is_closed = True

    def _model(self, call: Call) -> FakeModel:
        if call.model not in self.models:
            raise Failure("status", f"Request for unknown model: '{call.model}' is not found", status="NOT_FOUND")
        return self.models[call.model]

    def _reply(self, call: Call, model: FakeModel, outputs: Mapping[str, Array]) -> Reply:
        dtypes = {spec.name: spec.dtype.name for spec in ModelConfig.from_dict(dict(model.config)).outputs}
        wanted = call.request.outputs if call.request is not None else ()
        return Reply(
            outputs={
                name: (dtypes.get(name, "FP32"), array)
                for name, array in outputs.items()
                if not wanted or name in wanted
            },
            document={
                "model_name": call.model,
                "model_version": "1",
                "id": call.request.request_id if call.request else "",
            },
        )


class AsyncFakeTransport:
    """A :class:`FakeTransport` for an :class:`AsyncSafeTritonClient`.

    Args:
        fake: what answers.
    """

    def __init__(self, fake: FakeTransport) -> None:
        self.fake = fake

    async def send(self, call: Call, timeout_s: float) -> Reply:
        """Answer one call."""
        return self.fake.send(call, timeout_s)

    async def stream(self, call: Call, timeout_s: float) -> AsyncIterator[Reply]:
        """Answer one call with a stream."""
        for reply in self.fake.stream(call, timeout_s):
            yield reply

    async def close(self) -> None:
        """Note that the client is closed."""
        self.fake.close()


def metadata_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata that Triton makes of a configuration."""
    parsed = ModelConfig.from_dict(dict(config))
    batch = [-1] if parsed.max_batch_size else []
    inputs, outputs = (
        [{"name": spec.name, "datatype": spec.dtype.name, "shape": [*batch, *spec.dims]} for spec in specs]
        for specs in (parsed.inputs, parsed.outputs)
    )
    return {"name": parsed.name, "versions": ["1"], "platform": "python", "inputs": inputs, "outputs": outputs}


def _arrays(call: Call) -> dict[str, Array]:
    return {name: array for name, (_, array) in call.tensors.items()}
