"""Values and keys as they are written in ``safe-triton.toml``, for messages that say which line to add."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from safe_triton.unsafe import AllowNetwork, Token, Unlimited

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_GROUPED_FROM = 10_000


def toml_value(value: Any) -> str:
    """Return a value of a declaration in one line of TOML.

    Args:
        value: a number, text, path, list, type of a parameter, danger token, or a mapping of such.
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:_}" if value >= _GROUPED_FROM else str(value)
    if isinstance(value, float):
        return f"{value}"
    if isinstance(value, Unlimited):
        return toml_value({"unlimited": value.reason})
    if isinstance(value, AllowNetwork):
        return toml_value({"reason": value.reason, "to": value.to})
    if isinstance(value, Token):
        return toml_value({"reason": value.reason})
    if isinstance(value, type):
        return toml_value(value.__name__)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{toml_key(name)} = {toml_value(each)}" for name, each in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def toml_key(*parts: str) -> str:
    """Return a dotted key; parts that need them get quotes."""
    return ".".join(
        part if _BARE.fullmatch(part) else json.dumps(part, ensure_ascii=False).replace("\x7f", "\\u007f")
        for part in parts
    )
