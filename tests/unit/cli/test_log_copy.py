"""The log on standard output: whole lines, whatever is the matter with whoever reads them."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator

import pytest

from safe_triton.cli.log_copy import LogCopy
from tests.triton.stubs import wait_until


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe's ends: to read and to write."""
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        os.close(end)


def test_lines_are_written_as_they_are_shown(pipe: tuple[int, int]) -> None:
    """In order, all of them by the time it is closed; bytes that are no text are replaced."""
    copy = LogCopy(pipe[1], str.upper)
    copy.feed(b"one\ntwo\n")
    copy.feed(b"\xff\n")
    copy.close()
    assert os.read(pipe[0], 100).decode() == "ONE\nTWO\n\ufffd\n"


def test_a_full_disk(pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not taken now is written when there is room, from the byte on where it ended."""
    tried, has_room, write = threading.Event(), threading.Event(), os.write

    def full(descriptor: int, data: bytes) -> int:
        if not tried.is_set():
            tried.set()
            return write(descriptor, data[:3])
        if not has_room.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data)

    monkeypatch.setattr("safe_triton.cli.log_copy.os.write", full)
    copy = LogCopy(pipe[1], str, retry_s=0.01)
    copy.feed(b"first\n")
    assert tried.wait(60)
    copy.feed(b"second\n")
    has_room.set()
    found = b""
    while not found.endswith(b"second\n"):
        found += os.read(pipe[0], 100)
    copy.close()
    assert found == b"first\nsecond\n"


def test_a_reader_that_does_not_keep_up(pipe: tuple[int, int]) -> None:
    """Nobody waits for it: the oldest lines go, whole, and a line says how much."""
    os.set_blocking(pipe[1], False)
    copy = LogCopy(pipe[1], str, most_bytes=1000, retry_s=0.01)
    for number in range(100_000):
        copy.feed(b"%08d\n" % number)
    found = b""

    def read() -> bool:
        nonlocal found
        found += os.read(pipe[0], 1 << 16)
        return found.endswith(b"00099999\n")

    wait_until(read, lambda: f"ends with {found[-300:]!r}")
    copy.close()
    lines = found.decode().splitlines()
    notes = [json.loads(line) for line in lines if line.startswith("{")]
    numbers = [int(line) for line in lines if not line.startswith("{")]
    assert numbers == sorted(numbers)
    assert sum(note["dropped_bytes"] for note in notes) == 9 * (100_000 - len(numbers)) > 0


def test_nobody_reads() -> None:
    """Its thread ends, and nothing is kept for it."""
    reader, writer = os.pipe()
    os.close(reader)
    copy = LogCopy(writer, str)
    copy.feed(b"line\n")
    wait_until(lambda: not copy._thread.is_alive())
    copy.feed(b"line\n")
    assert not copy._pieces
    copy.close()
    os.close(writer)
