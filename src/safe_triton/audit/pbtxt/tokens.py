"""The words of a text-format file with their offsets, template placeholders among them."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator
from typing import NamedTuple

PLACEHOLDER = r"""
    \$\{[^}\n]{0,200}\} | \$\([A-Za-z_]\w{0,60}\) | \$[A-Za-z_]\w*                 # shell, CMake, make
  | \{\{[^{}:\n]{0,200}\}\} | \{%[^%]{0,500}%\} | \{\#[^#]{0,500}\#\}              # Jinja, Helm, Go
  | \{\s{0,8}[A-Za-z_][\w.]{0,60}(?:![rsa])?\s{0,8}\}                              # Python's format
  | %\([A-Za-z_]\w{0,60}\)[sdif] | %[sdif]\b | %[A-Za-z_]\w{0,60}%                # Python's older format, batch files
  | __[A-Za-z]\w{0,60}__(?!\s{0,8}[:{[<])                                          # sed; not a field's name
  | <%[^%]{0,500}%> | <\s{0,8}[A-Za-z_][\w -]{0,60}>                               # ERB, hand-written <batch size>
  | @[A-Za-z_]\w{0,60}@ | \[\[\s{0,8}[A-Za-z_][\w. |-]{0,60}\]\]                   # autoconf, custom brackets
"""
"""None of these can stand in a text-format file outside strings and comments. Bounded: hostile text costs no more."""

_TOKEN = re.compile(
    rf"""
    (?P<blank>[ \t\r\f\v\n]+|\#[^\n]*)
  | (?P<string>"(?:[^"\\\n]|\\[^\n])*"?|'(?:[^'\\\n]|\\[^\n])*'?)
  | (?P<placeholder>{PLACEHOLDER})
  | (?P<word>[A-Za-z_]\w*)
  | (?P<number>(?:0[xX][0-9a-fA-F]+|\.?[0-9][0-9a-zA-Z_.]*(?:(?<=[eE])[+-]?[0-9]+)?))
  | (?P<mark>[{{}}\[\]<>:,;/.-])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
IN_STRING = re.compile(
    r"\$\{[^}]{1,200}\}|\{\{[^{}]{1,200}\}\}|\{%[^%]{0,500}%\}|<%[^%]{0,500}%>"
    r"|@[A-Z_][A-Z0-9_]*@|%\([A-Za-z_]\w*\)s|^<[A-Za-z_][\w -]*>$"
)
"""A placeholder inside a string, where shell and template syntax is otherwise ordinary text."""


class Token(NamedTuple):
    """One word.

    Args:
        kind: ``string``, ``placeholder``, ``word``, ``number``, ``mark``, ``other`` or ``end``.
        text: as it is written.
        start: offset of its first character.
    """

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """Offset behind its last character."""
        return self.start + len(self.text)

    @property
    def is_closed(self) -> bool:
        """Whether a string ends with its quote."""
        body = self.text[1:-1]
        escapes = len(body) - len(body.rstrip("\\"))
        return len(self.text) > 1 and self.text[-1] == self.text[0] and escapes % 2 == 0


def tokenize(text: str) -> Iterator[Token]:
    """Yield the words of a file, without blanks and comments, and an ``end`` at its end.

    Args:
        text: the file.
    Does not cover:
        Whether the words make sense: a broken file has words too.
    """
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or "other"
        if kind != "blank":
            yield Token(kind, match.group(), match.start())
    yield Token("end", "", len(text))


class Lines:
    """Line and column of an offset.

    Args:
        text: the file.
    """

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """Line and column, both from 1; ``(0, 0)`` for a negative offset."""
        if offset < 0:
            return 0, 0
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
