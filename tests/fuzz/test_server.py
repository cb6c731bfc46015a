"""A slice of ``make fuzz`` for every run of the tests, and what the fuzzer itself rests on."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tests.fuzz.server.__main__ import fuzz
from tests.fuzz.server.models import MODELS, Model, is_right
from tests.fuzz.server.requests import good, hostile
from tests.fuzz.server.scan import CANARY, leaks

SLICE = 1500
BY_NAME = {model.name: model for model in MODELS}

LEAKS = (
    "At:\n  /home/ada/models/digits/1/model.py(53): execute",
    'Traceback (most recent call last):\n  File "x"',
    "Failed to open shared memory triton_python_backend_shm_region_7",
    "ValueError: bad",
    "object at 0x7f3a91c2d0",
    f"LOGNAME={CANARY}",
)
CLEAN = (
    "model failed (id 7f3a91c2d0aa)",
    "limit.rows: 17 > 16 at inputs['PIXELS'].shape[0]",
    "Unable to parse request",
)


@pytest.mark.parametrize("answer", LEAKS)
def test_the_scanner_finds_a_leak(answer: str) -> None:
    """What bare Triton answers is found, unless the client sent the words itself."""
    assert leaks(answer.encode(), b"", (CANARY.encode(),))
    assert not leaks(answer.encode(), answer.encode(), (CANARY.encode(),))


@pytest.mark.parametrize("answer", CLEAN)
def test_the_scanner_passes_what_clients_may_read(answer: str) -> None:
    """A refusal and the id of a failure are no leaks."""
    assert not leaks(answer.encode(), b"", (CANARY.encode(),))


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_a_wrong_answer_is_told_from_the_right_one(model: Model) -> None:
    """Another request's answer does not pass."""
    inputs = model.make(random.Random(1))
    right = model.answer(inputs)
    assert is_right(model, inputs, right)
    wrong = {name: np.full_like(array, b"other" if array.dtype == object else 7) for name, array in right.items()}
    assert not is_right(model, inputs, wrong)
    assert not is_right(model, inputs, {})


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_is_a_function_of_its_seed(protocol: str) -> None:
    """What is reported can be sent again."""
    for number in range(300):
        assert hostile(random.Random(number), protocol) == hostile(random.Random(number), protocol)
        assert good(random.Random(number), protocol).sent == good(random.Random(number), protocol).sent


@pytest.mark.triton
def test_a_slice_of_the_campaign() -> None:
    """Nothing hangs, nothing is left dead, no answer tells about the inside, and good requests are answered rightly."""
    tally, models = fuzz(SLICE, seed=0)
    assert tally.problems == []
    assert tally.good["right"] > SLICE * 0.15
    assert {row["state"] for row in models.values()} == {"ready"}
    assert sum(tally.sent.values()) >= SLICE
