"""What is said about a load that the confinement stopped."""

from __future__ import annotations

import re

import pytest

from safe_triton.policy.sandbox import ResourceLimits, SandboxPolicy
from safe_triton.supervision.advice import ADVICE, advised


@pytest.mark.parametrize(
    ("reason", "named"),
    [
        ("PermissionError: [Errno 13] Permission denied: '/srv/words'", "safe-triton learn"),
        ("PermissionError: [Errno 1] Operation not permitted", "safe-triton learn"),
        ("FileNotFoundError: [Errno 2] No usable temporary directory found in ['/tmp']", 'write = ["{scratch}"]'),
        ("URLError: <urlopen error [Errno -3] Temporary failure in name resolution>", 'to = "any"'),
        ("MemoryError: Unable to allocate 128. GiB for an array", "memory_bytes"),
        ("RuntimeError: can't start new thread", "user_threads"),
    ],
)
def test_what_grants_it(reason: str, named: str) -> None:
    """The model's own words stay, and behind them stands what to write or to run, once."""
    said = advised(f"{reason} (at model.py line 7); model 'b' failed to load: {reason}")
    assert said.startswith(f"{reason} (at model.py line 7); ")
    assert said.count(named) == 1


@pytest.mark.parametrize("reason", ["", "ModuleNotFoundError: No module named 'x'", "KeyError: 'Permission'"])
def test_what_no_grant_would_help(reason: str) -> None:
    """A fault of the model's own stays as it is."""
    assert advised(reason) == reason


def test_words_of_the_policy() -> None:
    """What an advice names is a word of the policy file."""
    known = {*SandboxPolicy.__dataclass_fields__, *ResourceLimits.__dataclass_fields__}
    named = {word for _, text in ADVICE for word in re.findall(r"(?<=\\] )(\w+) =|(\w+_(?:bytes|threads))", text)}
    assert {word for words in named for word in words if word} <= known
