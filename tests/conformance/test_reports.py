"""Every class and function of pb_utils, called in the fake and in the real stub: the reports are equal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.conformance.sides import Fake, Real, Side, open_real

CASES = (
    "environment",
    "tensor",
    "dlpack",
    "error",
    "response",
    "request",
    "made_request",
    "metric",
    "logger",
    "utility",
)

# Label -> why the fake's text differs. Only the class's name in the text: a class written in Python has no module there.
DIFFERENCES = {
    ("tensor", "new attribute"): "AttributeError names the class without its module",
    ("error", "less"): "TypeError names the class without its module",
    ("response", "new attribute"): "AttributeError names the class without its module",
    ("request", "attribute model_name"): "AttributeError names the class without its module",
    ("request", "attribute preferred_memory"): "AttributeError names the class without its module",
    ("request", "attribute priority"): "AttributeError names the class without its module",
    ("request", "new attribute"): "AttributeError names the class without its module",
}


def reported(side: Side, case: str) -> dict[str, Any]:
    """One group of the probe's cases on one side."""
    inputs = {"CASE": np.array([case.encode()], dtype=object), "X": np.array([1, 2, 3], np.float32)}
    seen = side.ask("probe", inputs, parameters={"a": 1, "b": "s", "c": True}, request_id="rid", timeout_us=9)
    assert not seen.error, seen.error
    report: dict[str, Any] = json.loads(seen.text("REPORT"))
    return report


@pytest.fixture(scope="module", params=["real", "viewed"])
def real(request: pytest.FixtureRequest) -> Iterator[Real]:
    opened = open_real(request.param, request.getfixturevalue("triton_server"))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def fake(real: Real) -> Iterator[Fake]:
    """One for each real side: metrics keep their values."""
    assert real.name
    opened = Fake()
    yield opened
    opened.close()


@pytest.mark.triton
@pytest.mark.parametrize("case", CASES)
def test_reports_are_equal(fake: Fake, real: Real, case: str) -> None:
    """A model cannot tell the fake from the real module, apart from the listed differences."""
    here, there = reported(fake, case), reported(real, case)
    assert list(here) == list(there)
    differing = [label for label in here if here[label] != there[label]]
    assert differing == [label for group, label in DIFFERENCES if group == case]
    for label in differing:
        assert here[label] == there[label].replace("c_python_backend_utils.", "")


@pytest.mark.triton
@pytest.mark.parametrize("model", ["rich", "iterative", "identity"])
def test_initialize_is_handed_the_same(fake: Fake, real: Real, model: str) -> None:
    """The arguments of ``initialize`` are equal, the whole configuration with all its defaults included."""
    requests: dict[str, dict[str, Any]] = {
        "rich": {"X": np.zeros((1, 1, 4), np.float32)},
        "iterative": {"ROUNDS": np.array([[1]], np.int32)},
        "identity": {"STRING": np.array([[b"args"]], dtype=object)},
    }
    output = "OUT_STRING" if model == "identity" else "ARGS"
    here, there = (json.loads(side.ask(model, requests[model]).text(output)) for side in (fake, real))
    for each in (here, there):
        each["model_config"] = json.loads(each["model_config"])
    assert here == there
