"""Jinja templates that come with a tokenizer: expressions that leave the template for Python's own objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from safe_triton.audit.modelfiles.look import Look

MAX_TEMPLATE_CHARS = 4 << 20

_OPENING = re.compile(r"\{[{%]")
# A name with two underscores on each side, whole or glued together, is never needed to lay out a chat.
_ESCAPE = re.compile(
    r"""__\s*(?:class|globals|builtins|subclasses|mro|bases?|import|init|new|call|getattribute|getattr|dict|code|self
            |loader|reduce|reduce_ex|func|module|closure|wrapped|getitem)\s*__
      |["'][^"']*_{2}["']\s*(?:~|\+|,|\|\s*join)     # '__' ~ 'class'
      |\\x5f\\x5f|\\u005f|\\137|%5f%5f
      |["']_["']\s*\*\s*2
      |\b(?:os|subprocess|sys|builtins|posix)\s*\.\s*
        (?:popen|system|run|Popen|call|check_output|modules|environ|eval|exec)
      |\|\s*attr\s*\(
      |\b(?:lipsum|cycler|joiner|url_for|get_flashed_messages|config|self|request)\s*(?:\.\s*_|\[\s*["']_|\|\s*attr)
      |\b(?:popen|__import__|eval|exec|compile|getattr|import_module)\s*\(
      |\._TemplateReference__context|\bfunc_globals\b|\bgi_frame\b|\bf_globals\b|\btb_frame\b|\bmro\s*\(\s*\)
    """,
    re.VERBOSE | re.IGNORECASE,
)


def check_template(text: str, look: Look, *, what: str = "the template") -> None:
    """Report the first expression that reaches Python's internals."""
    for start, inside in _blocks(text[:MAX_TEMPLATE_CHARS]):
        found = _ESCAPE.search(inside)
        if found:
            line = text.count("\n", 0, start) + 1
            look.find(
                "template-injection",
                f"{what}{look.where} reaches for {found.group(0).strip()[:60]!r} (line {line} of the template)",
            )
            return


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Where each expression and statement begins, and what is in it; unclosed ones cost one search, not one each."""
    unclosed: set[str] = set()
    position = 0
    while opening := _OPENING.search(text, position):
        position = opening.end()
        closing = "}}" if opening.group() == "{{" else "%}"
        end = -1 if closing in unclosed else text.find(closing, position)
        if end < 0:
            unclosed.add(closing)
            continue
        yield opening.start(), text[position:end]
        position = end + 2


def is_template(data: bytes) -> bool:
    """Tell whether a text has expressions of a template."""
    return b"{{" in data or b"{%" in data


def check_json(value: Any, look: Look) -> None:
    """Look at every template in a tokenizer's or processor's configuration."""
    for key, text in texts(value):
        if "template" in key.lower() or "{{" in text or "{%" in text:
            check_template(text, look, what=f"{key[:80] or 'a text'}")


def texts(value: Any, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Yield all texts of a value with the key that leads to them."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, dict) and depth < 60:
        for name, inner in value.items():
            below = name if isinstance(name, str) and not (name == "template" and key) else key
            yield from texts(inner, below, depth + 1)
    elif isinstance(value, list) and depth < 60:
        for inner in value:
            yield from texts(inner, key, depth + 1)


def load_json(data: bytes) -> Any:
    """Return the value of a JSON text, or nothing."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError, MemoryError):
        return None
