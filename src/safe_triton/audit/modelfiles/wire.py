"""Protobuf messages on the wire: fields by number, contents left where they lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from safe_triton.audit.modelfiles.source import Cursor, Source

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MAX_TEXT_BYTES = 1 << 16


class Field(NamedTuple):
    """One field: a number, or the range of a length-delimited content."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class WireError(ValueError):
    """The bytes are no message."""


def varint(cursor: Cursor) -> int:
    """Read a number of up to ten bytes."""
    value = shift = 0
    while shift < 70:
        byte = cursor.byte()
        if byte < 0:
            raise WireError("ends inside a number")
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value
        shift += 7
    raise WireError("a number of more than ten bytes")


def fields(source: Source, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """Yield the fields of the message in a range.

    Raises:
        WireError: the range holds no whole message.
    """
    stop = source.size if end is None else end
    cursor = Cursor(source, start, stop)
    while cursor.offset < stop:
        key = varint(cursor)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise WireError("field 0")
        if wire == VARINT:
            yield Field(number, wire, varint(cursor), 0, 0)
        elif wire == BYTES:
            size = varint(cursor)
            place = cursor.offset
            if not cursor.skip(size):
                raise WireError(f"announces {size} bytes that are not there")
            yield Field(number, wire, 0, place, place + size)
        elif wire in {FIXED32, FIXED64}:
            if not cursor.skip(4 if wire == FIXED32 else 8):
                raise WireError("ends inside a number")
            yield Field(number, wire, 0, 0, 0)
        else:
            raise WireError(f"wire type {wire}")


def content(source: Source, field: Field, limit_bytes: int = MAX_TEXT_BYTES) -> bytes:
    """Return a content, up to a limit."""
    return source.read(field.start, min(limit_bytes, field.end - field.start))


def text(source: Source, field: Field, limit_bytes: int = 4096) -> str:
    """Return a content as text."""
    return content(source, field, limit_bytes).decode("utf-8", "backslashreplace")
