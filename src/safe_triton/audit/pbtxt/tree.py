"""The fields of a text-format file as they are written: which there are, in which order, and where."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from safe_triton.audit.pbtxt.tokens import IN_STRING, Token, tokenize

MAX_DEPTH = 100
"""Messages within messages: Triton's configuration has six."""

MAX_FIELDS = 50_000
"""Fields with a place: more would take hundreds of megabytes; the largest real configurations have some hundreds."""

_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{1,2}|[0-7]{1,3}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_NAMED = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}


class TreeError(ValueError):
    """The text has no structure from this offset on."""

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class TreeSizeError(ValueError):
    """The text has more fields than are worth a place."""


@dataclass(slots=True)
class Field:
    """One field with its value, which stands for one element where the file has a list.

    Args:
        name: the field's name; empty for the file itself.
        start: offset of the name; negative for a field that the file does not have.
        value_start: offset of the value.
        end: offset behind the value.
        value: the value's text, unquoted, for a scalar.
        is_string: whether the scalar is quoted.
        is_placeholder: whether a template's placeholder stands in the value.
        children: the fields of a message.
        whole: start and end of the whole assignment, all elements of its list included.
    """

    name: str = ""
    start: int = -1
    value_start: int = -1
    end: int = -1
    value: str | None = None
    is_string: bool = False
    is_placeholder: bool = False
    children: list[Field] = field(default_factory=list)
    whole: tuple[int, int] = (-1, -1)

    def __bool__(self) -> bool:
        return self.start >= 0

    @property
    def is_template(self) -> bool:
        """Whether a template's placeholder stands in it, or in any field below."""
        return self.is_placeholder or any(each.is_placeholder for each in self.walk())

    def all(self, name: str) -> list[Field]:
        """The fields of that name, in the file's order."""
        return [child for child in self.children if child.name == name]

    def at(self, *path: str | int) -> Field:
        """The field under names and, where a name repeats, a number; an absent one is false."""
        found = self
        for index, step in enumerate(path):
            if isinstance(step, int):
                continue
            number = path[index + 1] if index + 1 < len(path) else 0
            matches = found.all(step)
            position = number if isinstance(number, int) else 0
            if position >= len(matches):
                return ABSENT
            found = matches[position]
        return found

    def entry(self, name: str, key: str) -> Field:
        """The entry of a map under that key; an absent one is false."""
        for child in self.all(name):
            if child.at("key").value == key:
                return child
        return ABSENT

    def walk(self) -> Iterator[Field]:
        """Every field below, in the file's order."""
        stack = list(reversed(self.children))
        while stack:
            top = stack.pop()
            yield top
            stack.extend(reversed(top.children))


ABSENT = Field()


def parse_tree(text: str) -> Field:
    """Read the structure of a text-format file without knowing its fields.

    Args:
        text: the file.
    Returns:
        The file as a field whose children are the top-level fields.
    Raises:
        TreeError: no structure, or messages within messages beyond ``MAX_DEPTH``.
        TreeSizeError: more than ``MAX_FIELDS`` fields.
    Does not cover:
        Names, types and duplicates: the definition judges those.
    """
    return _Reader(tokenize(text)).read()


class _Reader:
    def __init__(self, tokens: Iterable[Token]) -> None:
        self._tokens = iter(tokens)
        self._next = next(self._tokens)
        self._fields = 0

    def read(self) -> Field:
        root = Field(start=0, value_start=0)
        self._message(root, "", 0)
        root.end = self._next.start
        return root

    def _take(self) -> Token:
        token = self._next
        if token.kind != "end":
            self._next = next(self._tokens)
        return token

    def _skip(self, *marks: str) -> bool:
        if self._next.kind == "mark" and self._next.text in marks:
            self._take()
            return True
        return False

    def _message(self, parent: Field, closing: str, depth: int) -> int:
        """Read fields up to the closing mark; return the offset behind it."""
        if depth > MAX_DEPTH:
            raise TreeError(f"messages nested deeper than {MAX_DEPTH}", self._next.start)
        while True:
            token = self._take()
            if token.kind == "end":
                if closing:
                    raise TreeError(f"expected {closing!r} before the end of the file", token.start)
                return token.start
            if token.kind == "mark" and token.text == closing:
                return token.end
            if token.kind == "placeholder":  # stands for whole fields
                parent.children.append(
                    Field("", token.start, token.start, token.end, is_placeholder=True, whole=(token.start, token.end))
                )
                self._skip(",", ";")
                continue
            name = self._name(token)
            self._field(parent, name, token, depth)
            self._skip(",", ";")

    def _name(self, token: Token) -> str:
        if token.kind == "word":
            return token.text
        if token.kind == "mark" and token.text == "[":  # an extension, which this definition has none of
            parts = []
            while self._next.kind in {"word", "mark", "number"} and self._next.text != "]":
                parts.append(self._take().text)
            if self._skip("]"):
                return f"[{''.join(parts)}]"
        raise TreeError(f"expected a field name, found {token.text[:20]!r}", token.start)

    def _field(self, parent: Field, name: str, token: Token, depth: int) -> None:
        has_colon = self._skip(":")
        if self._next.kind == "mark" and self._next.text == "[":
            self._list(parent, name, token, depth)
            return
        child = self._value(name, token.start, depth, has_colon=has_colon)
        child.whole = (token.start, child.end)
        parent.children.append(child)

    def _list(self, parent: Field, name: str, token: Token, depth: int) -> None:
        self._take()
        elements = []
        while not (self._next.kind == "mark" and self._next.text == "]"):
            if self._next.kind == "end":
                raise TreeError("expected ']' before the end of the file", self._next.start)
            elements.append(self._value(name, self._next.start, depth, has_colon=True))
            if not self._skip(","):
                break
        end = self._next
        if not self._skip("]"):
            raise TreeError(f"expected ']', found {end.text[:20]!r}", end.start)
        for element in elements:
            element.whole = (token.start, end.end)
        parent.children += elements

    def _value(self, name: str, start: int, depth: int, *, has_colon: bool) -> Field:
        first = self._next
        self._fields += 1
        if self._fields > MAX_FIELDS:
            raise TreeSizeError(f"more than {MAX_FIELDS:,} fields")
        if first.kind == "mark" and first.text in "{<":
            self._take()
            child = Field(name, start, first.start)
            child.end = self._message(child, "}" if first.text == "{" else ">", depth + 1)
            return child
        if not has_colon and first.kind != "placeholder":
            raise TreeError(f"expected ':' or '{{' after {name!r}, found {first.text[:20]!r}", first.start)
        return self._scalar(name, start)

    def _scalar(self, name: str, start: int) -> Field:
        first = self._take()
        child = Field(name, start, first.start, first.end, is_placeholder=first.kind == "placeholder")
        if first.kind == "string":
            if not first.is_closed:
                raise TreeError("a string is not closed on its line", first.start)
            parts = [unquote(first.text)]
            while self._next.kind == "string":
                last = self._take()
                parts.append(unquote(last.text))
                child.end = last.end
            child.value, child.is_string = "".join(parts), True
            child.is_placeholder = IN_STRING.search(child.value) is not None
        elif first.kind in {"word", "number"} or (first.kind == "mark" and first.text == "-"):
            last = self._take() if first.text == "-" else first
            child.value, child.end = ("-" + last.text if first.text == "-" else first.text), last.end
            child.is_placeholder = child.is_placeholder or last.kind == "placeholder"
        elif first.kind != "placeholder":
            raise TreeError(f"expected a value of {name!r}, found {first.text[:20]!r}", first.start)
        # A placeholder may stand within a value, as in ${prefix}_name or TYPE_<dtype>: its parts touch.
        while self._next.start == child.end and (self._next.kind == "placeholder" or child.is_placeholder):
            if self._next.kind not in {"placeholder", "word", "number"}:
                break
            child.is_placeholder = True
            child.end = self._take().end
        return child


def unquote(literal: str) -> str:
    """The text of a string literal, escapes resolved; bytes outside ASCII become the characters of the same number."""

    def character(match: re.Match[str]) -> str:
        code = match.group(1)
        if code[0] in "xuU" and len(code) > 1:
            number = int(code[1:], 16)
        elif code[0] in "01234567":
            number = int(code, 8)
        else:
            return _NAMED.get(code, code)
        return chr(number) if number <= 0x10FFFF else "\ufffd"

    body = literal[1:-1]
    return _ESCAPE.sub(character, body) if "\\" in body else body
