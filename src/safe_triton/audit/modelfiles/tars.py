"""TAR archives by their own headers, so that none of their fields decides how much memory is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from safe_triton.audit.modelfiles.look import MAX_MEMBERS, Look
from safe_triton.audit.modelfiles.source import PartSource, Source
from safe_triton.audit.modelfiles.zips import text

BLOCK = 512
MAX_HEADER_BYTES = 1 << 20


class Entry(NamedTuple):
    """One header."""

    name: str
    kind: bytes
    link: str
    content: Source


def number(field: bytes) -> int:
    """Return a number of a header: octal, or base 256 with the first bit set; -1 for neither."""
    if field[:1] and field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        return -1


def is_tar(source: Source) -> bool:
    """Tell a TAR archive by the checksum of its first header, which every kind of tar has."""
    head = source.read(0, BLOCK)
    if len(head) < BLOCK or not head[0]:
        return False
    written = number(head[148:156])
    return written > 0 and written == sum(head[:148]) + 8 * 32 + sum(head[156:])


def entries(source: Source, look: Look) -> Iterator[Entry]:
    """Yield the members; long names and links may stand in records of their own."""
    offset, count = 0, 0
    long_name = long_link = ""
    pax: dict[str, str] = {}
    while offset + BLOCK <= source.size:
        head = source.read(offset, BLOCK)
        if not any(head):
            return
        size = number(head[124:136])
        if number(head[148:156]) != sum(head[:148]) + 8 * 32 + sum(head[156:]) or size < 0:
            look.find("model-file-malformed", f"the archive{look.where} breaks off at byte {offset}")
            return
        kind = head[156:157]
        if kind in b"LKxg" and kind:
            data = source.read(offset + BLOCK, min(size, MAX_HEADER_BYTES))
            if size > MAX_HEADER_BYTES:
                look.find("archive-bomb", f"a header of {size} bytes in the archive{look.where}")
            if kind == b"L":
                long_name = text(data.rstrip(b"\0"))
            elif kind == b"K":
                long_link = text(data.rstrip(b"\0"))
            else:
                pax.update(records(data))
        else:
            prefix = head[345:500].split(b"\0")[0] if head[257:262] == b"ustar" else b""
            short = head[:100].split(b"\0")[0]
            name = long_name or pax.get("path") or text(prefix + b"/" + short if prefix else short)
            link = long_link or pax.get("linkpath") or text(head[157:257].split(b"\0")[0])
            size = int(pax["size"]) if pax.get("size", "").isdigit() else size
            content = PartSource(source, offset + BLOCK, size if kind in b"\x000\x007S" else 0)
            if kind in b"\x000\x007S" and offset + BLOCK + size > source.size:
                look.find("model-file-malformed", f"member {name}{look.where} is cut off")
            yield Entry(name, kind, link, content)
            long_name = long_link = ""
            pax = {}
            count += 1
            if count > MAX_MEMBERS:
                look.find("archive-bomb", f"the archive{look.where} holds more than {MAX_MEMBERS} members")
                return
        offset += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK


def records(data: bytes) -> dict[str, str]:
    """Return the ``key=value`` records of an extended header."""
    found: dict[str, str] = {}
    at = 0
    while at < len(data):
        space = data.find(b" ", at, at + 20)
        if space < 0 or not data[at:space].isdigit() or int(data[at:space]) <= 0:
            break
        length = int(data[at:space])
        key, _, value = data[space + 1 : at + length].rstrip(b"\n").partition(b"=")
        found[text(key)] = text(value)
        at += length
    return found
