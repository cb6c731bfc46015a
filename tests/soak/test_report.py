"""What a soak says of what it saw."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.soak.report import Soak, write
from tests.soak.samples import Sample, Use

FLAT = [
    Sample(float(at), {"a": Use(20, 7, 7), "tritonserver": Use(20, 80, 400)}, 11, 11.0, at // 4) for at in range(40)
]
SOAK = Soak(
    minutes=1,
    samples=FLAT,
    latencies_ms=[1.0, 2.0, 3.0],
    faults={"sigkill": 2},
    answered={"a over HTTP": 3},
    lost=[],
    problems=[],
    hostile={"grpc OK": 1},
    unhealed=[],
    final={"a": "ready"},
)


def growing(name: str, unit: str, by: float) -> list[Sample]:
    """Samples of which one process takes more and more."""
    return [
        replace(
            sample,
            uses={
                **sample.uses,
                name: replace(sample.uses[name], **{unit: getattr(sample.uses[name], unit) + at * by}),
            },
        )
        for at, sample in enumerate(FLAT)
    ]


def test_nothing_to_say() -> None:
    """What stays level and loses nothing is no problem."""
    assert SOAK.verdict() == []


@pytest.mark.parametrize(
    ("name", "unit", "by"), [("a", "memory_mib", 2.0), ("a", "descriptors", 3.0), ("tritonserver", "threads", 60.0)]
)
def test_a_process_that_grows(name: str, unit: str, by: float) -> None:
    """It is named, unless its requests ask for that."""
    soak = replace(SOAK, samples=growing(name, unit, by))
    (found,) = soak.verdict()
    assert found.startswith(f"{name}: ")
    assert replace(soak, offenders=frozenset([name])).verdict() == []


def test_what_deaths_leave_in_tritonserver() -> None:
    """Thirty-five threads for each death of a model are Triton's own."""
    samples = growing("tritonserver", "threads", 8.5)  # a death in four samples
    assert replace(SOAK, samples=samples).verdict() == []


@pytest.mark.parametrize("field", ["lost", "problems", "unhealed"])
def test_whatever_may_not_be(field: str) -> None:
    """Is in the verdict."""
    changes: dict[str, Any] = {field: ["something"]}
    assert replace(SOAK, **changes).verdict() == ["something"]


def test_a_model_that_ends_otherwise() -> None:
    """Is in the verdict too."""
    assert replace(SOAK, final={"a": "quarantined"}).verdict() == ["a ended as quarantined"]


def test_the_files(tmp_path: Path) -> None:
    """A picture, and a page that holds it."""
    picture, page = write(replace(SOAK, offenders=frozenset("a")), tmp_path)
    assert picture.read_bytes().startswith(b"\x89PNG")
    text = page.read_text()
    assert "data:image/png;base64," in text and "no problems" in text
    assert SOAK.as_json()["latency_ms"]["p50"] == 2.0
