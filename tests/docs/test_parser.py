"""The parser of the documentation's blocks misses none and accepts no marker that says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.blocks import parse

PAGE = Path("page.md")


def test_blocks_with_line_language_and_text() -> None:
    """A block is found with the line of its fence, the first word after it and its text without indentation."""
    blocks = parse("words\n\n```python title\nx = 1\n```\n- item\n\n  ~~~toml\n  a = 1\n  ~~~\n", PAGE)
    assert [(b.line, b.language, b.text) for b in blocks] == [(3, "python", "x = 1\n"), (8, "toml", "a = 1\n")]


def test_a_longer_fence_holds_a_shorter_one() -> None:
    """Three ticks inside four are text."""
    (block,) = parse("````text\n```python\n```\n````\n", PAGE)
    assert block.text == "```python\n```\n"


def test_markers() -> None:
    """A marker belongs to the block right after it, and to that one only."""
    blocks = parse(
        "<!-- test: skip needs a running server -->\n```python\n```\n\n```python\n```\n"
        "<!-- test: load model_repository/x/config.pbtxt -->\n\n```python\n```\n",
        PAGE,
    )
    assert [(b.skip, b.load) for b in blocks] == [
        ("needs a running server", ""),
        ("", ""),
        ("", "model_repository/x/config.pbtxt"),
    ]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```python\nx = 1\n", "not closed"),
        ("<!-- test: skip -->\n```python\n```\n", "only for a reason"),
        ("<!-- test: skip later -->\n```python\n```\n", "only for a reason"),
        ("<!-- test: load -->\n```python\n```\n", "config.pbtxt"),
        ("<!-- test: ignore for many good reasons -->\n```python\n```\n", "unknown marker"),
        ("<!-- test skip for many good reasons -->\n```python\n```\n", "a marker is"),
        ("<!-- test: skip for many good reasons -->\nwords\n```python\n```\n", "directly before"),
        ("<!-- test: skip for many good reasons -->\n", "before no block"),
    ],
)
def test_what_is_refused(text: str, reason: str) -> None:
    """An open fence and a marker without a reason, of an unknown kind or away from its block are errors."""
    with pytest.raises(ValueError, match=reason):
        parse(text, PAGE)
