"""The models of model_repository/ as a fuzzer sees them: signatures, good requests, and their right answers."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).parents[3] / "model_repository"

Array = np.ndarray[Any, Any]
Arrays = Mapping[str, Array]


@dataclass(frozen=True, kw_only=True)
class Model:
    """One model.

    Args:
        name: of the model.
        inputs: data type and dims of each, as config.pbtxt has them.
        is_batched: whether an axis of rows comes before the dims.
        outputs: data type of each.
        make: a request that every limit allows.
        answer: what comes back for it, computed here.
    """

    name: str
    inputs: Mapping[str, tuple[str, tuple[int, ...]]]
    is_batched: bool
    outputs: Mapping[str, str]
    make: Callable[[random.Random], dict[str, Array]]
    answer: Callable[[Arrays], dict[str, Array]]


def _text(rng: random.Random, most: int = 24) -> bytes:
    return "".join(rng.choices("abcdefg hij äöü 漢字 ", k=rng.randint(1, most))).encode()


def _pixels(rng: random.Random) -> dict[str, Array]:
    rows = rng.randint(1, 4)
    return {"PIXELS": np.array([[rng.randint(0, 16) for _ in range(64)] for _ in range(rows)], np.float32)}


def _digits(inputs: Arrays) -> dict[str, Array]:
    with np.load(REPOSITORY / "digits" / "1" / "weights.npz", allow_pickle=False) as weights:
        hidden = np.maximum(inputs["PIXELS"] / 16 @ weights["hidden_weight"] + weights["hidden_bias"], 0)
        logits = hidden @ weights["output_weight"] + weights["output_bias"]
    likelihood = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {"SCORES": likelihood / likelihood.sum(axis=1, keepdims=True)}


def _users(rng: random.Random) -> dict[str, Array]:
    return {"USER_ID": np.array([[rng.randint(1, 999_999)] for _ in range(rng.randint(1, 3))], np.int64)}


def _features(inputs: Arrays) -> dict[str, Array]:
    return {"FEATURES": (inputs["USER_ID"] % np.array([2, 3, 5, 7])).astype(np.float32)}


def _orders(rng: random.Random) -> dict[str, Array]:
    lines = [
        {"article": "bolt", "quantity": rng.randint(1, 9), "unit_price_cents": rng.randint(0, 500)}
        for _ in range(rng.randint(1, 3))
    ]
    return {"ORDER": np.array([[json.dumps({"customer": "Ada", "lines": lines}).encode()]], object)}


def _receipts(inputs: Arrays) -> dict[str, Array]:
    lines = json.loads(inputs["ORDER"][0, 0])["lines"]
    total = sum(line["quantity"] * line["unit_price_cents"] for line in lines)
    receipt = {"customer": "Ada", "articles": len(lines), "total_cents": total}
    return {"RECEIPT": np.array([[json.dumps(receipt).encode()]], object)}


def _readings(rng: random.Random) -> dict[str, Array]:
    return {"READINGS": np.array([[rng.uniform(0, 4) for _ in range(8)] for _ in range(rng.randint(1, 3))], np.float32)}


def _alarms(inputs: Arrays) -> dict[str, Array]:
    swing = np.ptp(inputs["READINGS"], axis=1)
    return {"ALARM": np.where(swing > 3.5, b"ALARM", b"ok").astype(object)[:, np.newaxis]}


def _passages(rng: random.Random) -> dict[str, Array]:
    return {"PASSAGES": np.array([[_text(rng) for _ in range(rng.randint(1, 4))]], object)}


def _vectors(inputs: Arrays) -> dict[str, Array]:
    passages = inputs["PASSAGES"]
    vectors = np.zeros((*passages.shape, 256), np.float32)
    for place, passage in np.ndenumerate(passages):
        text = f" {' '.join(passage.decode().casefold().split())} "
        counts = vectors[place]
        for start in range(len(text) - 2):
            counts[zlib.crc32(text[start : start + 3].encode()) % 256] += 1
    return {"VECTORS": vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1)}


MODELS: tuple[Model, ...] = (
    Model(
        name="digits",
        inputs={"PIXELS": ("FP32", (64,))},
        is_batched=True,
        outputs={"SCORES": "FP32", "LABEL": "INT32"},
        make=_pixels,
        answer=_digits,
    ),
    Model(
        name="async_lookup",
        inputs={"USER_ID": ("INT64", (1,))},
        is_batched=True,
        outputs={"FEATURES": "FP32"},
        make=_users,
        answer=_features,
    ),
    Model(
        name="json_order",
        inputs={"ORDER": ("BYTES", (1,))},
        is_batched=True,
        outputs={"RECEIPT": "BYTES"},
        make=_orders,
        answer=_receipts,
    ),
    Model(
        name="protected_legacy",
        inputs={"READINGS": ("FP32", (8,))},
        is_batched=True,
        outputs={"ALARM": "BYTES"},
        make=_readings,
        answer=_alarms,
    ),
    Model(
        name="text_vectors",
        inputs={"PASSAGES": ("BYTES", (-1,))},
        is_batched=True,
        outputs={"VECTORS": "FP32"},
        make=_passages,
        answer=_vectors,
    ),
)
"""All but ``stream_words``, whose stream has no single answer; it gets hostile requests too, see STREAMED."""

STREAMED = Model(
    name="stream_words",
    inputs={"TEXT": ("BYTES", (1,))},
    is_batched=False,
    outputs={"WORD": "BYTES", "POSITION": "INT32"},
    make=lambda rng: {"TEXT": np.array([_text(rng)], object)},
    answer=lambda inputs: {"WORD": np.array(inputs["TEXT"][0].split()[:1], object)},
)


def is_right(model: Model, inputs: Arrays, outputs: Arrays) -> bool:
    """Tell whether an answer is the one that was computed here."""
    for name, wanted in model.answer(inputs).items():
        found = outputs.get(name)
        if found is None or found.shape != wanted.shape:
            return False
        if wanted.dtype == object:
            if found.tolist() != wanted.tolist():
                return False
        elif not np.allclose(found, wanted, atol=1e-5):
            return False
    return True
