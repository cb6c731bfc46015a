"""The harness around atheris: what it begins with, what it reads from libFuzzer, what it says without atheris."""

from __future__ import annotations

import importlib.util
import sys

import pytest

from tests.fuzz.parsers import __main__ as harness
from tests.fuzz.parsers.targets import TARGETS, seeds

LOG = """#2 INITED cov: 100 ft: 110 corp: 1/1b exec/s: 0 rss: 90Mb
#4096 pulse  cov: 308 ft: 900 corp: 171/9Kb exec/s: 409 rss: 99Mb
Done 34331 runs in 91 second(s)
stat::number_of_executed_units: 34331
"""
FAILED = """#7 NEW cov: 9 ft: 9 corp: 2/2b
 === Uncaught Python exception: ===
KeyError: 'x'
Test unit written to /c/crash-1
"""


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_takes_anything(target: str) -> None:
    """The files it begins with, cut ones, and none at all leave it with findings or its own errors."""
    for data in (
        b"",
        b"\xff\x00{",
        *(seed[: len(seed) // divisor] for seed in seeds(target)[:3] for divisor in (1, 2)),
    ):
        TARGETS[target](data)


def test_what_libfuzzer_says() -> None:
    """Runs, places covered and why it failed."""
    assert harness.read_log(LOG) == {"runs": 34331, "covered": 308, "corpus": 171, "failure": "", "input": ""}
    failed = harness.read_log(FAILED)
    assert (failed["failure"], failed["input"]) == ("KeyError: 'x'", "/c/crash-1")


def test_without_atheris(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line says what is missing and how to get it."""
    monkeypatch.setattr(sys, "argv", ["parsers", "config"])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert harness.main() == 2
    assert capsys.readouterr().err == "tests.fuzz.parsers: atheris is not installed: pip install atheris\n"
