"""Noticing that a stream's client is gone, also while the author's code works on its next response."""

from __future__ import annotations

import threading
from time import monotonic, sleep
from typing import Any

from safe_triton.runtime.deadline import Watchdog

CHECK_S = 0.1
"""Seconds between two questions to Triton; each takes 40 to 120 microseconds, so never the request path asks."""

IDLE_CHECKS = 10
"""Looks without a stream after which the thread ends; the next stream starts another."""


class ClientWatch:
    """Asks from a thread whether the client of the running stream is gone, and interrupts the author's code then.

    Args:
        watchdog: interrupts it.

    Attributes:
        is_gone: whether the client of the stream that began last is gone.
    """

    def __init__(self, watchdog: Watchdog) -> None:
        self.is_gone = False
        self._watchdog = watchdog
        self._sender: Any = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def begin(self, sender: Any) -> None:
        """A stream begins."""
        with self._lock:
            self._sender, self.is_gone = sender, False
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="safe_triton-stream", daemon=True)
                self._thread.start()

    def end(self) -> None:
        """The author's code has no part in this stream any more: nothing may be interrupted for it."""
        with self._lock:
            self._sender = None
            self._watchdog.shorten(0.0)

    def _run(self) -> None:
        idle = 0
        while True:
            sleep(CHECK_S)
            idle = 0 if self._look() else idle + 1
            if idle >= IDLE_CHECKS and self._has_ended():
                return

    def _look(self) -> bool:
        """Ask Triton about the stream that runs, if there is one, and note when its client is gone."""
        # With the lock, so that no stream ends meanwhile: asking about a request that Triton has released ends
        # tritonserver 2.51.0.
        with self._lock:
            sender = self._sender
            if sender is not None and _is_gone(sender):
                self._sender, self.is_gone = None, True
                self._watchdog.shorten(monotonic())
        return sender is not None

    def _has_ended(self) -> bool:
        with self._lock:
            if self._sender is None:
                self._thread = None
            return self._thread is None


def _is_gone(sender: Any) -> bool:
    try:
        return bool(sender.is_cancelled())
    except Exception:  # the stream ended in this moment
        return False
