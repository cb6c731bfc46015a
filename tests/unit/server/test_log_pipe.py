"""The pipe that a server prints to: what goes in comes out, bounded, and nothing can be taken back."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from safe_triton.server.log import ServerLog
from safe_triton.server.log_pipe import LONGEST_LINE_BYTES, PIPE_BYTES, LogPipe


@pytest.fixture
def log(tmp_path: Path) -> ServerLog:
    """An empty log."""
    return ServerLog(tmp_path / "server.log")


@pytest.fixture
def pipe(tmp_path: Path, log: ServerLog) -> Iterator[LogPipe]:
    """A pipe into it."""
    made = LogPipe(tmp_path, log)
    yield made
    made.close()


class TestCopy:
    def test_everything_arrives_in_order(self, pipe: LogPipe, log: ServerLog) -> None:
        """Reading the log takes in what was written before, without a wait."""
        for number in range(100):
            os.write(pipe.writer, b"line %d\n" % number)
            assert log.text().endswith(f"line {number}\n")

    def test_what_is_left_at_the_end(self, tmp_path: Path, log: ServerLog) -> None:
        """Closing copies the rest; it may be repeated."""
        pipe = LogPipe(tmp_path, log)
        os.write(pipe.writer, b"last words")
        pipe.close()
        pipe.close()
        assert log.text() == "last words"

    def test_a_flood_does_not_stop_the_writer(self, pipe: LogPipe, log: ServerLog) -> None:
        """Far more than the pipe holds goes through, and the writer comes back."""

        def flood() -> None:
            for _ in range(8 * PIPE_BYTES // 4096):
                os.write(pipe.writer, b"x" * 4095 + b"\n")

        thread = threading.Thread(target=flood, daemon=True)
        thread.start()
        thread.join(timeout=150)
        assert not thread.is_alive()
        assert log.size_bytes() == 8 * PIPE_BYTES

    @pytest.mark.parametrize("step", [1, 7, 1000, 4096])
    def test_a_long_line_is_cut(self, pipe: LogPipe, log: ServerLog, step: int) -> None:
        """A line has its limit however it comes in pieces, and the log says how much is missing."""
        extra = 100
        line = b"y" * (LONGEST_LINE_BYTES + extra)
        first = len(line) - 3 * step  # most of it at once: pieces of one byte take long
        os.write(pipe.writer, line[:first])
        log.text()
        for start in range(first, len(line), step):
            os.write(pipe.writer, line[start : start + step])
            log.text()
        os.write(pipe.writer, b"\nnext\n")
        assert log.text() == "y" * LONGEST_LINE_BYTES + f" [{extra} bytes of this line dropped]\nnext\n"

    def test_a_line_of_this_program(self, pipe: LogPipe, log: ServerLog) -> None:
        """It stands on a line of its own, also behind a line that a model has not ended."""
        os.write(pipe.writer, b"unfinished")
        pipe.add(b"ours")
        pipe.add(b"again")
        assert log.text() == "unfinished\nours\nagain\n"

    def test_listeners(self, tmp_path: Path, log: ServerLog) -> None:
        """They get what the log gets."""
        heard: list[bytes] = []
        pipe = LogPipe(tmp_path, log, [heard.append])
        os.write(pipe.writer, b"one\n")
        pipe.add(b"two")
        pipe.close()
        assert b"".join(heard) == b"one\ntwo\n"


class TestPipe:
    def test_has_no_name(self, pipe: LogPipe, tmp_path: Path) -> None:
        """Nobody opens it who was not given it."""
        assert not any(stat.S_ISFIFO(entry.stat().st_mode) for entry in tmp_path.iterdir())
        assert stat.S_IMODE(os.fstat(pipe.writer).st_mode) == 0o200

    def test_is_not_inherited_unasked(self, pipe: LogPipe) -> None:
        """Other programs that this one starts do not get it."""
        assert not os.get_inheritable(pipe.writer)
