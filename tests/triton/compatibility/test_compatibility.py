"""Models of every form answer the same bare, in ``protect``, and under ``protect=True`` of a server."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.triton.compatibility.compare import Answers, is_same, run, verdict
from tests.triton.compatibility.forms import NAMED, PAGE, written

pytestmark = pytest.mark.timeout(600)  # the first test of each fixture waits for three servers with all models

MODELS = Path(__file__).parent / "models"
COMPLETED = Path(__file__).parent / "completed"
NOT_LOADED = {"calls_early", "completed_badly", "load_ends", "load_raises"}
EXPECTED = {
    "silent": "request 0 hangs bare, is answered here",
    "async_stream": "request 2 hangs bare, is answered here",
    "senders": "request 10 ends the server bare, is answered here",
}
WAYS = ("protect", "serve --protect")
STREAMED = {"calls_edges", "calls_stream"}
"""They read other models' streams by themselves, which from Python 3.12 on ends release 2.51.0's process, bare as well."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def check(ways: dict[str, Answers], model: str, way: str) -> None:
    """Only what hangs for ever bare, or ends the server, is answered; everything else is the same."""
    assert ways["bare"].problem == ("does not load" if model in NOT_LOADED else "")
    assert verdict(ways["bare"], ways[way]) == EXPECTED.get(model, "same")


@pytest.fixture(scope="module")
def found(triton_server: Any) -> dict[str, dict[str, Answers]]:
    """What each model answered in each of the three ways."""
    assert triton_server
    return run(MODELS)


@pytest.fixture(scope="module")
def completed(triton_server: Any) -> dict[str, dict[str, Answers]]:
    """The same, on servers that let models complete their configurations: they import each model twice."""
    assert triton_server
    return run(COMPLETED, completing=names(COMPLETED))


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", names(MODELS))
def test_what_a_client_sees_is_the_same(found: dict[str, dict[str, Answers]], model: str, way: str) -> None:
    """Whatever form a model has."""
    if model in STREAMED and sys.version_info >= (3, 12):
        pytest.skip("this release frees a stream's answers without the interpreter's lock: SIGSEGV from Python 3.12 on")
    check(found[model], model, way)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", names(COMPLETED))
def test_what_a_model_completes_is_the_same(completed: dict[str, dict[str, Answers]], model: str, way: str) -> None:
    """``auto_complete_config`` sees and gives what it does bare."""
    check(completed[model], model, way)


@pytest.mark.slow
def test_what_has_to_answer_does(found: dict[str, dict[str, Answers]]) -> None:
    """A model's own tests all pass, and a form that is the same because all of it fails is no proof."""
    assert found["tests_inside"]["bare"].replies == [[{"Y": ("BYTES", (1,), "[b'10']")}]]
    every = {name: ways["bare"].replies for name, ways in found.items() if name not in NOT_LOADED}
    without = {name for name, replies in every.items() if not any(isinstance(r, dict) for one in replies for r in one)}
    assert without == {"silent"}


def test_each_of_nvidias_forms_is_here() -> None:
    """More than 50 of them; each form that a row names is a model, and each model is named by a row."""
    named = {form for _, rows in NAMED for forms in rows.values() for form in forms}
    here = {*names(MODELS), *names(COMPLETED)}
    assert sum(len(rows) for _, rows in NAMED) > 50
    assert named <= here
    assert here - named == {"async_plain", "parameters", "unfinished", "wrong_outputs"}


def test_the_page_has_the_table() -> None:
    """``python -m tests.triton.compatibility.forms`` writes it."""
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page


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
