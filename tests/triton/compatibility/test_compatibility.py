"""Models of every form answer the same bare, in ``protect``, and under ``protect=True`` of a server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.triton.compatibility.compare import Answers, is_same, run, verdict

MODELS = Path(__file__).parent / "models"
HANGS = "request {} hangs bare, is answered here"
EXPECTED = {"silent": HANGS.format(0), "async_stream": HANGS.format(2)}


@pytest.fixture(scope="module")
def found(triton_server: Any) -> dict[str, dict[str, Answers]]:
    """What each model answered in each of the three ways."""
    assert triton_server
    return run(MODELS)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["protect", "serve --protect"])
@pytest.mark.parametrize("model", sorted(path.name for path in MODELS.iterdir()))
def test_what_a_client_sees_is_the_same(found: dict[str, dict[str, Answers]], model: str, way: str) -> None:
    """Only what hangs for ever bare is answered."""
    bare = found[model]["bare"]
    assert bare.problem == ""
    assert verdict(bare, found[model][way]) == EXPECTED.get(model, "same")


@pytest.mark.parametrize(
    ("bare", "other", "same"),
    [
        ("not here", "not here", True),
        ("not here", "model failed (id 0123456789abcdef)", False),
        ("Failed to process the request(s): x", "model failed (id 0123456789abcdef)", True),
        ("Failed to process the request(s), message: TritonModelException: x\n y\n\nAt:\n  /m.py(3)", "x\n y", True),
        ("Failed to process the request(s), message: TritonModelException: x\n\nAt:\n  /m.py(3)", "y", False),
        ({"Y": 1}, {"Y": 2}, False),
    ],
)
def test_a_difference_is_seen(bare: Any, other: Any, same: bool) -> None:
    """An error that the model gave on purpose must not change; an exception's text must."""
    assert is_same(bare, other) is same
