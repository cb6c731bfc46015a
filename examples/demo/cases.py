"""What the demo sends, and what was promised for each of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from wire import Request

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRETS = ("correct-horse", "database.internal", "postgresql")
"""Parts of the secret in repository/failing/1/model.py."""

FAILED = r"model failed \(id [0-9a-f]+\)"


@dataclass(frozen=True)
class Case:
    """One hostile request, the good ones sent at the same moment, and the outcome promised.

    Args:
        sent: what is wrong with the request, for the table.
        hostile: the request.
        good: a request to the same model that has to be served whatever happens to the hostile one.
        refused_by: who answers: `Triton` itself before the model, `safe_triton`, or the `author` on purpose.
        code: Triton's name of the error.
        message: regular expression for the whole message.
        neighbours: how many good requests are sent with it.
        one_execute: whether all of them, the hostile one included, have to run in a single execute.
        is_stream: whether the model is decoupled, so that gRPC streaming is the way to it.
    """

    sent: str
    hostile: Request
    good: Request
    refused_by: str
    code: str
    message: str
    neighbours: int = 5
    one_execute: bool = False
    is_stream: bool = False


def pixels(rows: int, value: float = 1.0, dtype: Any = np.float32) -> Request:
    """Images of one grey level."""
    return Request("digits", {"PIXELS": np.full((rows, 64), value, dtype)})


def passages(*texts: bytes) -> Request:
    """One document of these passages."""
    return Request("text_vectors", {"PASSAGES": texts_array(texts)})


def order(text: str) -> Request:
    """One order as JSON."""
    return Request("json_order", {"ORDER": texts_array([text.encode()])})


def number(model: str, value: float, dtype: Any = np.float32) -> Request:
    """One number for one of the demo's own models."""
    return Request(model, {"X": np.array([[value]], dtype)})


def readings(values: Sequence[float]) -> Request:
    """One row of a sensor's readings."""
    return Request("protected_legacy", {"READINGS": np.array([values], np.float32)})


def user(user_id: int) -> Request:
    """One user's id."""
    return Request("async_lookup", {"USER_ID": np.array([[user_id]], np.int64)})


def stream(text: bytes) -> Request:
    """A text to be streamed back."""
    return Request("stream_words", {"TEXT": np.array([text], object)})


def texts_array(texts: Sequence[bytes]) -> np.ndarray:
    """One row of BYTES; numpy's own byte strings would lose NULs at their end."""
    array = np.empty((1, len(texts)), object)
    array[0, :] = texts
    return array


def hostile_cases() -> list[Case]:
    """Return every case of the demo."""
    image, document = pixels(1), passages("naïve café".encode(), b"plain words")
    receipt = order('{"customer": "Ada", "lines": [{"article": "tea", "quantity": 2, "unit_price_cents": 350}]}')
    swing = readings([0.5, 1.0, 1.5, 2.0, 1.0, 0.0, 1.0, 0.5])
    odd_parameter = Request("digits", image.inputs, parameters={"shell": "1"})
    return [
        Case(
            "batch too large for the declaration: 17 rows",
            pixels(17),
            image,
            "safe_triton",
            "INVALID_ARG",
            r"limit\.batch_size: 17 > 16 at inputs\['PIXELS'\]\.shape\[0\]",
        ),
        Case(
            "batch too large for config.pbtxt: 33 rows",
            pixels(33),
            image,
            "Triton",
            "INVALID_ARG",
            r".*inference request batch-size must be <= 32 for 'digits'",
        ),
        Case(
            "sequence too long: 17 passages",
            passages(*[b"passage"] * 17),
            document,
            "safe_triton",
            "INVALID_ARG",
            r"limit\.sequence_length: 17 > 16 at inputs\['PASSAGES'\]\.shape\[1\]",
        ),
        Case(
            "wrong dtype: FP64 for FP32",
            pixels(1, dtype=np.float64),
            image,
            "Triton",
            "INVALID_ARG",
            r".*'PIXELS' data-type is 'FP64', but model 'digits' expects 'FP32'",
        ),
        Case(
            "NaN in the pixels",
            pixels(1, float("nan")),
            image,
            "safe_triton",
            "INVALID_ARG",
            r"content\.not_finite: .* at inputs\['PIXELS'\]",
        ),
        Case(
            "pixels out of range: 255",
            pixels(1, 255.0),
            image,
            "safe_triton",
            "INVALID_ARG",
            r"content\.range: .* at inputs\['PIXELS'\]",
        ),
        Case(
            "8 MiB in one passage",
            passages(b"a" * (8 << 20)),
            document,
            "safe_triton",
            "INVALID_ARG",
            r"limit\.string_bytes: 8388608 > 4096 at inputs\['PASSAGES'\]\[0\]\[0\]",
        ),
        Case(
            "invalid UTF-8",
            passages(b"fine", b"\xff\xfe broken"),
            document,
            "safe_triton",
            "INVALID_ARG",
            r"content\.utf8: .* at inputs\['PASSAGES'\]\[0\]\[1\]",
        ),
        Case(
            "JSON that breaks the schema: -1 articles",
            order('{"customer": "Ada", "lines": [{"article": "tea", "quantity": -1, "unit_price_cents": 350}]}'),
            receipt,
            "safe_triton",
            "INVALID_ARG",
            r"content\.json: lines\.0\.quantity: .* at inputs\['ORDER'\]\[0\]\[0\]",
        ),
        Case(
            "no JSON at all",
            order("{'customer': "),
            receipt,
            "safe_triton",
            "INVALID_ARG",
            r"content\.json: .* at inputs\['ORDER'\]\[0\]\[0\]",
        ),
        Case(
            "unknown request parameter: shell",
            odd_parameter,
            image,
            "safe_triton",
            "INVALID_ARG",
            r"parameter\.unknown: .* at parameters\['shell'\]",
        ),
        Case(
            "makes the model raise with a secret in the text",
            number("failing", -1.0),
            number("failing", 4.0),
            "safe_triton",
            "INTERNAL",
            FAILED,
            neighbours=7,
            one_execute=True,
        ),
        Case(
            "one NaN in a batch of seven good requests",
            number("failing", float("nan")),
            number("failing", 9.0),
            "safe_triton",
            "INVALID_ARG",
            r"content\.not_finite: .* at inputs\['X'\]",
            neighbours=7,
            one_execute=True,
        ),
        Case(
            "makes a vendor's class raise with its path in the text",
            readings([1.0] * 8),
            swing,
            "safe_triton",
            "INTERNAL",
            FAILED,
        ),
        Case(
            "makes the model loop for ever",
            number("endless", -1, np.int32),
            number("endless", 3, np.int32),
            "safe_triton",
            "UNAVAILABLE",
            r"deadline\.exceeded: .* 300 ms.*",
        ),
        Case(
            "waits for a store that is too slow",
            user(1_500_000),
            user(42),
            "safe_triton",
            "UNAVAILABLE",
            r"deadline\.exceeded: .* 500 ms.*",
        ),
        Case(
            "a user that the author answers himself",
            user(3_000_000),
            user(42),
            "author",
            "NOT_FOUND",
            r"no such user",
        ),
        Case(
            "a text too long to be streamed: 3000 bytes",
            stream(b"word " * 600),
            stream(b"three short words"),
            "safe_triton",
            "INVALID_ARG",
            r"limit\.string_bytes: 3000 > 2048 at inputs\['TEXT'\]\[0\]",
            is_stream=True,
        ),
    ]
