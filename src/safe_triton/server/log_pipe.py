"""The pipe that a server and its models print to, and the thread that copies it to the log file.

With the file itself as its standard output, a model could shorten or overwrite what others wrote. What has gone through
a pipe is out of its reach.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from safe_triton.server.log import ServerLog

LONGEST_LINE_BYTES = 512 << 10
"""Longer lines are cut; those of this package, a bounded message and a bounded traceback as JSON, are not."""

READ_BYTES = 64 << 10
"""How much is read at once: less than a line may have, so that only a line begun before can be too long."""

PIPE_BYTES = 1 << 20
"""What writers can be ahead of the thread before they wait for it: the most that Linux gives any user."""

_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ of fcntl(2), which Python 3.10 names and earlier ones do not
_READS_AT_ONCE = 2 * PIPE_BYTES // READ_BYTES


class LogPipe:
    """A pipe whose writers can only add, copied to a log until :meth:`close`.

    A named pipe without its name, not an anonymous one: an anonymous one can be opened for reading through ``/proc``
    whatever Landlock grants, and lines be taken out of it before they are copied.

    Args:
        folder: a private folder, in which the name exists for a moment.
        log: what it is copied to.
        listeners: told about each piece that was copied, from the copying thread; they must be quick.

    Attributes:
        writer: descriptor for the standard output of a server.
        listeners: as above; more may come.

    Does not cover:
        What models write: lines may be false, and a flood pushes older lines out of the log. While this whole program
        is stopped, writers wait once the pipe is full.
    """

    def __init__(self, folder: Path, log: ServerLog, listeners: Iterable[Callable[[bytes], None]] = ()) -> None:
        self.listeners = list(listeners)
        self._log = log
        self._column = 0
        self._cut_bytes = 0
        self._lock = threading.Lock()
        name = folder / "log.pipe"
        os.mkfifo(name, 0o600)
        try:
            self._reader = os.open(name, os.O_RDONLY | os.O_NONBLOCK)
            self.writer = os.open(name, os.O_WRONLY)  # kept, so that there is no end of file between two servers
            # Also without Landlock nobody but root can open it for reading through a descriptor of its own.
            os.fchmod(self.writer, 0o200)
        finally:
            name.unlink()
        with contextlib.suppress(OSError):  # the user's pages for pipes may be used up
            fcntl.fcntl(self._reader, _SET_PIPE_SIZE, PIPE_BYTES)
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._run, name="safe_triton-log", daemon=True)
        self._thread.start()
        log.pump = self.pump

    def pump(self) -> None:
        """Copy what was written so far: what a process printed before it ended is in the log afterwards."""
        with self._lock:
            if self._reader < 0:
                return
            for _ in range(_READS_AT_ONCE):
                try:
                    data = os.read(self._reader, READ_BYTES)
                except BlockingIOError:
                    return
                self._copy(data)

    def add(self, line: bytes) -> None:
        """Add a line of this program's own after what was written so far, on a line of its own."""
        self.pump()
        with self._lock:
            if self._reader >= 0:
                self._copy((b"\n" if self._column else b"") + line + b"\n")

    def _copy(self, data: bytes) -> None:
        text = self._bounded(data)
        self._log.append(text)
        for listener in self.listeners:
            listener(text)

    def close(self) -> None:
        """Copy what is left and end the thread. May be repeated."""
        if self._stop_writer < 0:
            return
        os.close(self._stop_writer)
        self._stop_writer = -1
        self._thread.join()
        self.pump()
        with self._lock:
            for descriptor in (self._reader, self.writer, self._stop_reader):
                os.close(descriptor)
            self._reader = self.writer = -1

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._reader, select.POLLIN)
        poll.register(self._stop_reader, select.POLLIN)
        while not any(descriptor == self._stop_reader for descriptor, _ in poll.poll()):
            self.pump()

    def _bounded(self, data: bytes) -> bytes:
        """The same text with lines of bounded length; only the first one can have begun in an earlier piece."""
        head, newline, rest = data.partition(b"\n")
        room = max(0, LONGEST_LINE_BYTES - self._column)
        self._cut_bytes += max(0, len(head) - room)
        self._column += len(head)
        if not newline:
            return head[:room]
        note = b" [%d bytes of this line dropped]" % self._cut_bytes if self._cut_bytes else b""
        self._cut_bytes = 0
        self._column = len(rest) - (rest.rfind(b"\n") + 1)
        return head[:room] + note + b"\n" + rest
