"""A model without a server, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from safe_triton.client import Failure, FakeModel, FakeTransport, SafeTritonClient

DOUBLE: Mapping[str, Any] = {
    "name": "double",
    "max_batch_size": 4,
    "input": [{"name": "X", "data_type": "TYPE_FP32", "dims": [3]}],
    "output": [{"name": "Y", "data_type": "TYPE_FP32", "dims": [3]}],
}
WORDS: Mapping[str, Any] = {
    "name": "words",
    "max_batch_size": 0,
    "input": [{"name": "TEXT", "data_type": "TYPE_STRING", "dims": [-1]}],
    "output": [{"name": "WORD", "data_type": "TYPE_STRING", "dims": [1]}],
    "model_transaction_policy": {"decoupled": True},
}
URL = "grpc://localhost:8001"

Outputs = dict[str, Any]


def rows(count: int = 1) -> np.ndarray[Any, Any]:
    """An input of the model ``double``."""
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def texts(*items: str | bytes) -> np.ndarray[Any, Any]:
    """An input of the model ``words``."""
    array = np.empty(len(items), object)
    array[:] = items
    return array


def doubled(inputs: Mapping[str, Any]) -> Outputs:
    """What the model ``double`` does."""
    return {"Y": inputs["X"] * np.float32(2)}


def words(inputs: Mapping[str, Any]) -> Iterable[Outputs]:
    """What the model ``words`` does."""
    for word in b" ".join(inputs["TEXT"].tolist()).split():
        yield {"WORD": texts(word)}


def fake(
    *failures: Failure, infer: Callable[..., Any] = doubled, config: Mapping[str, Any] = DOUBLE, is_shown: bool = True
) -> FakeTransport:
    """A server with both models, whose next inferences fail in this way."""
    models = {
        "double": FakeModel(config=config, infer=infer, is_shown=is_shown),
        "words": FakeModel(config=WORDS, infer=words, is_shown=is_shown),
    }
    return FakeTransport(models, failures)


def client_of(transport: FakeTransport, **options: Any) -> SafeTritonClient:
    """A client of a fake server that may call everything."""
    return SafeTritonClient(URL, transport=transport, **{"models": "any", **options})


def sent(transport: FakeTransport, kind: str = "infer") -> int:
    """How many calls of a kind came."""
    return sum(call.kind == kind for call in transport.calls)
