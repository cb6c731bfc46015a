"""Requests under ``protect`` that nobody can answer any more: they end with an error instead of never."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping
from sys import getrefcount
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from safe_triton.runtime.protected_senders import GuardedSender

LOOK_S = 0.2
"""How long a request that nobody can answer waits at most until that is seen."""


class Unanswered:
    """Requests that ``execute`` left to their response senders, each until its final flag.

    Where no code of the model's holds a request, nor its sender, what is missing will never come: the thread that had
    it has ended, or nobody ever had it. References tell. They are counted by a thread of its own, which starts with
    the first such request and sleeps while there is none.

    Args:
        end: ends one request with an error.

    Does not cover:
        What the model still holds without ever answering, such as in a list that nobody reads.
    """

    def __init__(self, end: Callable[[Any], None]) -> None:
        self.senders: dict[Any, GuardedSender] = {}
        self._end = end
        self._is_over = threading.Event()
        self._is_needed = threading.Event()
        self._thread: threading.Thread | None = None
        self._own = next(_counted({object(): object()}))[2:]

    def add(self, request: Any, sender: GuardedSender) -> None:
        """A request whose answer, or its end, is to come by its sender."""
        self.senders[request] = sender
        if sender.is_finished:  # by another thread, just now
            self.senders.pop(request, None)
            return
        self._is_needed.set()
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="safe_triton-unanswered", daemon=True)
            with contextlib.suppress(RuntimeError):  # no more threads for this process: the next request tries again
                thread.start()
                self._thread = thread

    def close(self) -> None:
        """End the thread."""
        self._is_over.set()
        self._is_needed.set()

    def end_lost(self) -> None:
        """End the requests that nobody can answer any more."""
        own_request, own_sender = self._own
        lost = [
            request
            for request, sender, held, sender_held in _counted(self.senders)
            if sender is not None and sender_held <= own_sender and held <= own_request + sender.holds
        ]
        for request in lost:
            self._end(request)

    def _run(self) -> None:
        while not self._is_over.is_set():
            self._is_needed.wait()
            self._is_needed.clear()
            while self.senders and not self._is_over.wait(LOOK_S):
                self.end_lost()


def _counted(senders: Mapping[Any, Any]) -> Iterator[tuple[Any, Any, int, int]]:
    """Count the references to each request, and to its sender; as many as here are nobody's, whatever the release."""
    for request in tuple(senders):
        sender = senders.get(request)
        yield request, sender, getrefcount(request), getrefcount(sender)
