"""Bytes at an offset, from a file, from memory or from a part of either: nothing is read before it is asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import IO, Protocol

CHUNK_BYTES = 1 << 20
SPOOL_BYTES = 1 << 20  # an unpacked member above this lies in a temporary file, not in memory


class Source(Protocol):
    """Random access to bytes of a known length."""

    size: int

    def read(self, offset: int, length: int) -> bytes:
        """Return up to ``length`` bytes from ``offset``; fewer at the end."""
        ...


class FileSource:
    """An open regular file."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size

    def read(self, offset: int, length: int) -> bytes:
        """Read at an offset; the descriptor's own position is not used."""
        return os.pread(self.descriptor, length, offset) if 0 <= offset < self.size and length > 0 else b""


class PartSource:
    """A window onto another source."""

    def __init__(self, whole: Source, start: int, size: int) -> None:
        self.whole = whole
        self.start = start
        self.size = max(0, min(size, whole.size - start))

    def read(self, offset: int, length: int) -> bytes:
        """Read inside the window only."""
        if not 0 <= offset < self.size:
            return b""
        return self.whole.read(self.start + offset, min(length, self.size - offset))


class SpooledSource:
    """What was unpacked: in memory while small, in an unnamed temporary file above that."""

    def __init__(self) -> None:
        self.spool: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES)  # noqa: SIM115  # kept open
        self.size = 0

    def __del__(self) -> None:
        self.spool.close()

    def write(self, data: bytes) -> None:
        """Append."""
        self.spool.seek(self.size)
        self.spool.write(data)
        self.size += len(data)

    def read(self, offset: int, length: int) -> bytes:
        """Read at an offset."""
        if not 0 <= offset < self.size or length <= 0:
            return b""
        self.spool.seek(offset)
        return self.spool.read(length)


class Cursor:
    """Sequential reading with a small window, so that an opcode costs no system call."""

    WINDOW_BYTES = 1 << 16

    def __init__(self, source: Source, offset: int = 0, end: int | None = None) -> None:
        self.source = source
        self.end = source.size if end is None else min(end, source.size)
        self._window = b""
        self._start = offset
        self._at = 0

    @property
    def offset(self) -> int:
        """Where the next byte comes from."""
        return self._start + self._at

    def seek(self, offset: int) -> None:
        """Go on from another place; inside the window nothing is read again."""
        if self._start <= offset <= self._start + len(self._window):
            self._at = offset - self._start
        else:
            self._window, self._start, self._at = b"", offset, 0

    def skip(self, length: int) -> bool:
        """Go over bytes without reading them; false when they are not there."""
        if length < 0 or self.offset + length > self.end:
            return False
        self.seek(self.offset + length)
        return True

    def _fill(self, length: int) -> None:
        """Have ``length`` bytes in the window, if the source has them."""
        if self._at + length > len(self._window):
            start = self.offset
            wanted = min(max(length, self.WINDOW_BYTES), max(0, self.end - start))
            self._window, self._start, self._at = self.source.read(start, wanted), start, 0

    def take(self, length: int) -> bytes | None:
        """Return exactly ``length`` bytes, or nothing when they are not there."""
        if length < 0 or self.offset + length > self.end:
            return None
        self._fill(length)
        data = self._window[self._at : self._at + length]
        self._at += len(data)
        return data if len(data) == length else None

    def byte(self) -> int:
        """Return the next byte, -1 at the end."""
        if self._at >= len(self._window):
            self._fill(1)
            if self._at >= len(self._window):
                return -1
        value = self._window[self._at]
        self._at += 1
        return value

    def line(self, limit_bytes: int) -> bytes | None:
        """Return the bytes up to the next newline, which is consumed; nothing when none comes within the limit."""
        self._fill(1)
        found = self._window.find(b"\n", self._at)
        if found < 0:
            self._fill(min(limit_bytes, max(0, self.end - self.offset)))
            found = self._window.find(b"\n", self._at, self._at + limit_bytes)
        if found < 0:
            return None
        data = self._window[self._at : found]
        self._at = found + 1
        return data


def chunks(source: Source, start: int, end: int, *, overlap: int) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, bytes) over a range; neighbours share ``overlap`` bytes, so nothing is cut apart."""
    offset = start
    while offset < end:
        data = source.read(offset, min(CHUNK_BYTES, end - offset))
        if not data:
            return
        yield offset, data
        if offset + len(data) >= end:
            return
        offset += max(1, len(data) - overlap)
