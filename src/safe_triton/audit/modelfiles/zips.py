"""ZIP archives by their own bytes.

``zipfile`` refuses or repairs what loaders of models accept (a wrong checksum, a flag for encryption that nothing
uses, two names for one member), and hostile archives live from the difference; so every member that either directory
names is looked at, whatever the headers say about it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from safe_triton.audit.modelfiles.look import MAX_MEMBERS, Look
from safe_triton.audit.modelfiles.source import PartSource, Source, chunks

MAX_DIRECTORY_BYTES = 64 << 20
LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
END64, LOCATOR64 = b"PK\x06\x06", b"PK\x06\x07"
MAX_SCAN_BYTES = 64 << 20


class Member(NamedTuple):
    """One entry."""

    name: str
    method: int
    packed: Source
    size_bytes: int  # as declared
    mode: int  # of Unix, 0 when not given


def find_end(source: Source) -> int:
    """Return the offset of the end record, -1 without one."""
    start = max(0, source.size - (1 << 16) - 22)
    tail = source.read(start, source.size - start)
    found = tail.rfind(END)
    return start + found if found >= 0 else -1


def is_zip(source: Source) -> bool:
    """Tell a ZIP archive, also behind a prefix and also one whose directory is missing."""
    return source.read(0, 4) == LOCAL or find_end(source) >= 0


def directory(source: Source, look: Look) -> tuple[int, int, int]:
    """Return (offset, size, entries) of the central directory; offset -1 when there is none."""
    end = find_end(source)
    record = source.read(end, 22) if end >= 0 else b""
    if len(record) < 22:
        return -1, 0, 0
    entries, size, offset = struct.unpack("<HII", record[10:20])
    if source.read(end - 20, 4) == LOCATOR64:
        at = struct.unpack("<Q", source.read(end - 12, 8))[0]
        record64 = source.read(at, 56)
        if record64[:4] == END64 and len(record64) == 56:
            entries, size, offset = struct.unpack("<QQQ", record64[32:56])
            end = at
    if size > MAX_DIRECTORY_BYTES or entries > 1 << 20:
        look.find("archive-bomb", f"the archive{look.where} lists {entries} members in {size} bytes")
    # A prefix moves everything; the directory ends where the end record starts.
    if source.read(offset, 4) != CENTRAL and source.read(end - size, 4) == CENTRAL:
        offset = end - size
    return offset, min(size, MAX_DIRECTORY_BYTES), entries


def members(source: Source, look: Look) -> Iterator[Member]:
    """Yield what the central directory lists, then what only local headers name."""
    offset, size, _entries = directory(source, look)
    seen: set[int] = set()
    if offset >= 0:
        data = source.read(offset, size + 22)
        base = base_of(source, data)
        at = 0
        while data[at : at + 4] == CENTRAL and at + 46 <= len(data):
            entry = struct.unpack("<4s6H3I5H2I", data[at : at + 46])
            name_size, extra_size, comment_size = entry[10], entry[11], entry[12]
            name = data[at + 46 : at + 46 + name_size]
            extra = data[at + 46 + name_size : at + 46 + name_size + extra_size]
            packed_size, full_size, place = extended(extra, entry[8], entry[9], entry[16])
            at += 46 + name_size + extra_size + comment_size
            place += base
            seen.add(place)
            yield from local(source, place, look, name, entry[4], packed_size, full_size, entry[15] >> 16)
            if len(seen) > MAX_MEMBERS:
                look.find("archive-bomb", f"the archive{look.where} holds more than {MAX_MEMBERS} members")
                return
    yield from unlisted(source, look, seen, listed=offset >= 0)


def base_of(source: Source, data: bytes) -> int:
    """Return how far a prefix moves the members: 0 when the first one lies where the directory says."""
    if len(data) < 46:
        return 0
    place = struct.unpack("<I", data[42:46])[0]
    if place == 0xFFFFFFFF or source.read(place, 4) == LOCAL:
        return 0
    start = source.read(0, 1 << 16).find(LOCAL)
    return start - place if start >= 0 else 0


def extended(extra: bytes, packed: int, full: int, place: int) -> tuple[int, int, int]:
    """Take sizes of more than 32 bits from the extra field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack("<HH", extra[at : at + 4])
        if kind == 1:
            values = [value[0] for value in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + size // 8 * 8])]
            if full == 0xFFFFFFFF and values:
                full = values.pop(0)
            if packed == 0xFFFFFFFF and values:
                packed = values.pop(0)
            if place == 0xFFFFFFFF and values:
                place = values.pop(0)
        at += 4 + size
    return packed, full, place


def local(
    source: Source, place: int, look: Look, name: bytes, method: int, packed_size: int, full_size: int, mode: int
) -> Iterator[Member]:
    """Yield the member at a local header, under both names and methods where the headers disagree."""
    head = source.read(place, 30)
    shown = text(name)
    if len(head) < 30 or head[:4] != LOCAL:
        look.find("model-file-malformed", f"member {shown}{look.where} has no header where the directory says")
        return
    local_method, own_packed = struct.unpack("<H", head[8:10])[0], struct.unpack("<I", head[18:22])[0]
    if head[6] & 1:
        look.unexamined(f"member {shown}, which is said to be encrypted,")
    name_size, extra_size = struct.unpack("<HH", head[26:30])
    own_name = source.read(place + 30, name_size)
    start = place + 30 + name_size + extra_size
    if start + packed_size > source.size:
        look.find("model-file-malformed", f"member {shown}{look.where} is cut off")
    packed = PartSource(source, start, packed_size)
    yield Member(shown, method, packed, full_size, mode)
    if own_name != name:
        look.find("model-file-malformed", f"member {shown}{look.where} is called {text(own_name)} in its own header")
        yield Member(text(own_name), method, packed, full_size, mode)
    if local_method != method or (own_packed not in {0, 0xFFFFFFFF, packed_size}):
        own = PartSource(source, start, own_packed or packed_size)
        yield Member(shown, local_method, own, full_size, mode)


def unlisted(source: Source, look: Look, seen: set[int], *, listed: bool) -> Iterator[Member]:
    """Yield members that no directory lists; a reader of local headers finds them all the same."""
    if listed and not _has_gap(source, seen):
        return
    for offset, data in chunks(source, 0, min(source.size, MAX_SCAN_BYTES), overlap=3):
        found = data.find(LOCAL)
        while found >= 0:
            place = offset + found
            if place not in seen:
                seen.add(place)
                yield from unlisted_member(source, place, look)
            if len(seen) > MAX_MEMBERS:
                return
            found = data.find(LOCAL, found + 4)


def _has_gap(source: Source, seen: set[int]) -> bool:
    """Tell whether the archive starts with a member that the directory leaves out."""
    return source.read(0, 4) == LOCAL and 0 not in seen


def unlisted_member(source: Source, place: int, look: Look) -> Iterator[Member]:
    """Yield the member of one local header."""
    head = source.read(place, 30)
    if len(head) < 30:
        return
    method = struct.unpack("<H", head[8:10])[0]
    packed_size, full_size = struct.unpack("<II", head[18:26])
    name_size, extra_size = struct.unpack("<HH", head[26:30])
    name = source.read(place + 30, name_size)
    start = place + 30 + name_size + extra_size
    if method not in {0, 8, 12, 14, 93} or not name or start > source.size:
        return
    look.find("model-file-malformed", f"member {text(name)}{look.where} stands in no directory")
    size = packed_size if packed_size not in {0, 0xFFFFFFFF} else source.size - start
    yield Member(text(name), method, PartSource(source, start, size), full_size, 0)


def text(name: bytes) -> str:
    """Return a member's name, printable."""
    decoded = name[:300].decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else "?" for letter in decoded)
