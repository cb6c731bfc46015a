"""Where things stand in a TOML text: the line of every table and key, which ``tomllib`` does not tell."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Place = tuple[str | int, ...]
"""Keys and array indices from the top of a document to one value."""

_TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}'  # a text of several lines may end in quotes of its own
    r"|'''.*?'{3,5}"
    r'|"(?:\\.|[^"\\\n])*"'
    r"|'[^'\n]*'"
    r"|\#[^\n]*"
    r"|\n"
    r"|[\[\]{},=]"
    r"|[^\s\[\]{},=\"'#]+",
    re.DOTALL,
)


class _Tokens:
    """The tokens of a text, each with its line; comments are left out."""

    def __init__(self, text: str) -> None:
        self._tokens = list(_tokens(text))
        self._next = 0

    def peek(self) -> str:
        """The next token; ``""`` at the end."""
        return self._tokens[self._next][0] if self._next < len(self._tokens) else ""

    @property
    def line(self) -> int:
        """The next token's line."""
        return self._tokens[self._next][1]

    def take(self) -> str:
        """The next token, which is the next no more."""
        self._next += 1
        return self._tokens[self._next - 1][0]

    def skip_lines(self) -> None:
        while self.peek() == "\n":
            self.take()


def _tokens(text: str) -> Iterator[tuple[str, int]]:
    line, at = 1, 0
    for match in _TOKEN.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        if match[0][0] != "#":
            yield match[0], line


def locate(text: str) -> dict[Place, int]:
    """Return the line of every table, key and array element.

    Args:
        text: a document that ``tomllib`` has accepted; of anything else the result means nothing.
    """
    tokens, lines = _Tokens(text), dict[Place, int]()
    arrays: dict[Place, int] = {}
    table: Place = ()
    tokens.skip_lines()
    while tokens.peek():
        if tokens.peek() == "[":
            line = tokens.line
            tokens.take()
            is_array = tokens.peek() == "["
            if is_array:
                tokens.take()
            table = _header(_key(tokens, "]"), arrays, lines, line, is_array=is_array)
            if is_array:
                tokens.take()
        else:
            _assignment(tokens, table, lines)
        tokens.skip_lines()
    return lines


def _header(key: Place, arrays: dict[Place, int], lines: dict[Place, int], line: int, *, is_array: bool) -> Place:
    """The place that a header opens: an array of tables on the way stands for its newest element."""
    place: Place = ()
    for number, part in enumerate(key):
        place += (part,)
        lines.setdefault(place, line)
        if is_array and number == len(key) - 1:
            arrays[place] = arrays.get(place, -1) + 1
        if place in arrays:
            place += (arrays[place],)
            lines.setdefault(place, line)
    return place


def _assignment(tokens: _Tokens, table: Place, lines: dict[Place, int]) -> None:
    line, place = tokens.line, table
    for part in _key(tokens, "="):
        place += (part,)
        lines.setdefault(place, line)
    _value(tokens, place, lines)


def _key(tokens: _Tokens, end: str) -> Place:
    """The parts of a dotted key; bare parts and dots may come as one token, with blanks between them or without."""
    parts: list[str | int] = []
    while True:
        token = tokens.take()
        if token == end:
            return tuple(parts)
        if token[0] in "\"'":
            parts.append(tomllib.loads(f"key = {token}")["key"])
        else:
            parts += [part for part in token.split(".") if part]


def _value(tokens: _Tokens, place: Place, lines: dict[Place, int]) -> None:
    lines.setdefault(place, tokens.line)
    token = tokens.take()
    if token == "[":  # noqa: S105
        index = 0
        while tokens.peek() not in ("]", ""):
            if tokens.peek() in ("\n", ","):
                tokens.take()
                continue
            _value(tokens, (*place, index), lines)
            index += 1
        tokens.take()
    elif token == "{":  # noqa: S105
        while tokens.peek() not in ("}", ""):
            if tokens.peek() in ("\n", ","):
                tokens.take()
                continue
            _assignment(tokens, place, lines)
        tokens.take()
    else:
        while tokens.peek() not in ("\n", ",", "]", "}", ""):  # a date and its time may stand apart
            tokens.take()
