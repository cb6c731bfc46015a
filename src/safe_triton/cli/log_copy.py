"""The server's log on standard output, which may be slow, full for a while, or closed: nobody waits for it."""

from __future__ import annotations

import collections
import os
import threading
from collections.abc import Callable

from safe_triton.server.log_lines import own_line

MOST_BYTES = 16 << 20
"""What waits for a reader that does not keep up, or for a disk with room again; older lines are dropped."""

RETRY_S = 1.0
CLOSE_S = 2.0


class LogCopy:
    """Copies whole lines to a descriptor from a thread of its own, until :meth:`close`.

    Args:
        descriptor: to write to.
        shown: a line as it is to be written.
        most_bytes: that wait.
        retry_s: until a write that failed is tried again.

    Does not cover:
        What waits when :meth:`close` has waited two seconds.
    """

    def __init__(
        self,
        descriptor: int,
        shown: Callable[[str], str],
        *,
        most_bytes: int = MOST_BYTES,
        retry_s: float = RETRY_S,
    ) -> None:
        self._descriptor = descriptor
        self._shown = shown
        self._most_bytes = most_bytes
        self._retry_s = retry_s
        self._lock = threading.Lock()
        self._pieces: collections.deque[bytes] = collections.deque()
        self._waiting_bytes = self._dropped_bytes = 0
        self._news, self._is_over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="safe_triton-stdout", daemon=True)
        self._thread.start()

    def feed(self, piece: bytes) -> None:
        """Take whole lines; never waits."""
        if not self._thread.is_alive():
            return
        with self._lock:
            self._pieces.append(piece)
            self._waiting_bytes += len(piece)
            while self._waiting_bytes > self._most_bytes:
                dropped = len(self._pieces.popleft())
                self._waiting_bytes -= dropped
                self._dropped_bytes += dropped
        self._news.set()

    def close(self) -> None:
        """Write what waits, as far as that is possible at once."""
        self._is_over.set()
        self._news.set()
        self._thread.join(timeout=CLOSE_S)

    def _run(self) -> None:
        is_over = False
        while not is_over:
            self._news.wait()
            self._news.clear()
            is_over = self._is_over.is_set()
            while piece := self._next():
                if not self._is_written(piece):
                    return

    def _next(self) -> bytes:
        """The next lines as they are to be written; empty where there are none."""
        with self._lock:
            dropped, self._dropped_bytes = self._dropped_bytes, 0
            piece = self._pieces.popleft() if self._pieces else b""
            self._waiting_bytes -= len(piece)
        lines = piece.decode("utf-8", "replace").split("\n")[:-1]
        text = "".join(f"{self._shown(line)}\n" for line in lines).encode("utf-8", "replace")
        if dropped:
            message = "standard output did not take the log in time: lines were dropped"
            note = own_line("warning", message, {"dropped_bytes": dropped})
            text = note + b"\n" + text
        return text

    def _is_written(self, data: bytes) -> bool:
        """Write; what a full disk does not take now is tried again, from the byte on where it ended."""
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BrokenPipeError:
                return False  # nobody reads any more
            except OSError:
                if self._is_over.is_set() or self._is_over.wait(self._retry_s):
                    return False
        return True
