"""Requests that nobody can answer any more: who is one, and when nobody looks."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest

from safe_triton.runtime.protected_unanswered import Unanswered

WAIT_S = 60.0


class Request:
    """Stands for Triton's."""


def sender_of(request: Request, *, is_finished: bool = False) -> Any:
    """A sender that holds its request, once."""
    return SimpleNamespace(request=request, holds=1, is_finished=is_finished)


def test_who_is_one() -> None:
    """Nobody but its sender holds the request, and nobody the sender."""
    ended: list[Any] = []
    unanswered = Unanswered(ended.append)
    requests = [Request() for _ in range(4)]
    unanswered.senders.update({request: sender_of(request) for request in requests})
    kept_request, kept_sender, kept_method = requests[0], unanswered.senders[requests[1]], [requests[2].__str__]
    expected = id(requests[3])
    del requests
    unanswered.end_lost()
    assert list(map(id, ended)) == [expected]
    del kept_request, kept_sender, kept_method
    ended.clear()
    unanswered.end_lost()
    assert len(ended) == 4


def test_one_that_ends_meanwhile() -> None:
    """Another thread sends the final flag just before the request is noted: nothing is kept of it."""
    unanswered = Unanswered(lambda request: None)
    request = Request()
    unanswered.add(request, sender_of(request, is_finished=True))
    assert not unanswered.senders


def test_without_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process at its limit goes on, and the next request tries again."""
    ended = threading.Event()
    unanswered = Unanswered(lambda request: ended.set())
    start = threading.Thread.start

    def refused(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def left() -> None:
        request = Request()
        unanswered.add(request, sender_of(request))

    try:
        monkeypatch.setattr(threading.Thread, "start", refused)
        left()
        assert not ended.is_set()
        monkeypatch.setattr(threading.Thread, "start", start)
        left()
        assert ended.wait(WAIT_S)
    finally:
        unanswered.close()
