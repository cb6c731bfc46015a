"""Values as they are written in the operator's file: what is printed can be pasted."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safe_triton import unsafe
from safe_triton.policy.toml_text import toml_key, toml_value

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (9_999, "9999"),
        (1 << 20, "1_048_576"),
        (-20_000, "-20000"),
        (0.5, "0.5"),
        (float("-inf"), "-inf"),
        ('a "b" é', '"a \\"b\\" é"'),
        ("\x7f", '"\\u007f"'),
        (("/a", "/b"), '["/a", "/b"]'),
        ((), "[]"),
        ({}, "{}"),
        (float, '"float"'),
        (unsafe.Unlimited(reason="x"), '{ unlimited = "x" }'),
        (unsafe.AllowNetwork(reason="x", to=(443,)), '{ reason = "x", to = [443] }'),
        (unsafe.AllowProcesses(reason="x"), '{ reason = "x" }'),
    ],
)
def test_each_kind_of_value(value: Any, text: str) -> None:
    """In one line, tokens as the tables that they are in the file."""
    assert toml_value(value) == text
    tomllib.loads(f"a = {text}")


TEXTS = st.text(st.characters(blacklist_categories=["Cs"]))


class TestAnyText:
    """What is printed can be pasted."""

    @given(TEXTS)
    def test_a_text_comes_back(self, text: str) -> None:
        """Quotes, line breaks, control characters."""
        assert tomllib.loads(f"a = {toml_value(text)}") == {"a": text}

    @given(TEXTS, TEXTS)
    def test_a_key_comes_back(self, first: str, second: str) -> None:
        """Dots and blanks in a model's name."""
        assert tomllib.loads(f"[{toml_key('models', first, second)}]") == {"models": {first: {second: {}}}}
