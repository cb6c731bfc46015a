"""Asking whether a stream's client is gone: from a thread, and never about a stream that has ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from safe_triton.runtime.forms.gone import ClientWatch
from safe_triton.runtime.protected_senders import GuardedSender

WAIT_S = 60.0


class Watchdog:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.due_s = -1.0

    def shorten(self, due_s: float) -> None:
        self.due_s = due_s


class Sender:
    """Answers when it is let."""

    def __init__(self, *, is_gone: bool) -> None:
        self.is_gone = is_gone
        self.is_asked, self.may_answer = threading.Event(), threading.Event()

    def is_cancelled(self) -> bool:
        self.is_asked.set()
        assert self.may_answer.wait(WAIT_S)
        return self.is_gone


class TestClientWatch:
    """Triton ends when it is asked about a request whose final flag it has."""

    @pytest.fixture
    def watchdog(self) -> Watchdog:
        return Watchdog()

    @pytest.fixture
    def watch(self, watchdog: Watchdog) -> Iterator[ClientWatch]:
        watch = ClientWatch(watchdog)  # type: ignore[arg-type]
        yield watch
        watch.end()

    def test_no_stream_ends_while_triton_is_asked(self, watch: ClientWatch) -> None:
        """The end of a stream, after which its final flag is sent, waits for an answer that is on its way."""
        sender = Sender(is_gone=False)
        watch.begin(sender)
        assert sender.is_asked.wait(WAIT_S)
        ending = threading.Thread(target=watch.end)
        ending.start()
        ending.join(0.3)
        assert ending.is_alive()
        sender.may_answer.set()
        ending.join(WAIT_S)
        assert not ending.is_alive()

    def test_a_client_that_is_gone(self, watch: ClientWatch, watchdog: Watchdog) -> None:
        """The author's code is interrupted at once, and the stream is known to be over."""
        sender = Sender(is_gone=True)
        sender.may_answer.set()
        watch.begin(sender)
        assert sender.is_asked.wait(WAIT_S)
        watch.end()  # waits for the answer
        assert watch.is_gone

    def test_who_asks_too_late(self) -> None:
        """What a protected class asks about a finished request does not reach Triton: nobody waits any more."""
        sender = GuardedSender(Sender(is_gone=False), None, None, 1, 0)  # type: ignore[arg-type]
        sender.is_finished = True
        assert sender.is_cancelled()
