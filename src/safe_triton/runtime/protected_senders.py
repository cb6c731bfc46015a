"""What stands before Triton's response senders while a class is under ``protect``, and what is known of requests."""

from __future__ import annotations

from collections.abc import Callable
from sys import getrefcount
from time import monotonic
from typing import Any

from safe_triton.errors import OutputError
from safe_triton.runtime.protected_unanswered import Unanswered

WATCHED = ("get_response_sender", "set_release_flags")


class GuardedSender:
    """Stands before a response sender: responses are checked, and the final flag is sent once.

    A response that must not leave is answered with an error and the final flag, whatever thread it comes from: an
    exception there would end the author's thread, and the client would wait for ever. What the original sends after
    that goes nowhere; what it sends after a final flag of its own, Triton refuses as it does bare.

    Attributes:
        has_failed: whether an error was sent.
        holds: references to the request of this sender and of Triton's own.
        is_finished: whether the final flag was sent.
        last_s: when the last response was sent, of ``time.monotonic()``.
    """

    __slots__ = (
        "__weakref__",
        "_request",
        "_rows",
        "_sender",
        "_senders",
        "has_failed",
        "holds",
        "is_ended",
        "is_finished",
        "last_s",
    )

    def __init__(self, sender: Any, senders: Senders, request: Any, rows: int, holds: int) -> None:
        self.holds = holds + 1
        self._sender = sender
        self._senders = senders
        self._request = request
        self._rows = rows
        self.has_failed = False
        self.is_finished = False
        self.is_ended = False
        self.last_s = 0.0

    def send(self, response: Any = None, flags: int = 0) -> None:
        """Send one response, the final flag, or both, as the original sender does."""
        if self.is_ended:
            return
        senders = self._senders
        if response is not None:
            try:
                response = senders.check_response(response, self._rows)
                self.has_failed = self.has_failed or response.has_error()
            except OutputError as error:
                self.fail(error)
                return
        was_finished = self.is_finished
        self._send(response, flags)
        if self.is_finished and not was_finished:
            senders.count("answered" if self.has_failed else "ok")
        self.last_s = monotonic()
        senders.note_progress()

    def is_cancelled(self) -> bool:
        """Tell whether nobody waits for more: the client is gone, or has its last response.

        Triton is not asked about the latter: it has released the request, and tritonserver 2.51.0 ends when asked.
        """
        return self.is_finished or bool(self._sender.is_cancelled())

    def fail(self, error: BaseException) -> None:
        """End the request with an error, or without one where an ordinary model has sent its one response."""
        if not self.is_finished:
            self.is_ended = True
            response = self._senders.answer(error)  # counted and logged there
            only_end = self.last_s and not self._senders.is_decoupled
            self._send(None if only_end else response, self._senders.final_flag)

    def _send(self, response: Any, flags: int) -> None:
        if response is None:
            self._sender.send(flags=flags)
        else:
            # Held until it is sent: Triton drops outputs that were not asked for without the interpreter's lock, which
            # ends the process from Python 3.12 on.
            tensors = response.output_tensors()
            self._sender.send(response, flags=flags)
            del tensors
        if flags & self._senders.final_flag:
            self.is_finished = True
            self._senders.unanswered.senders.pop(self._request, None)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sender, name)


class Senders:
    """The response senders that the original took, and the requests that it asked Triton for again.

    Args:
        request_class: Triton's; two of its methods are replaced while this is installed.
        final_flag: ``TRITONSERVER_RESPONSE_COMPLETE_FINAL``.
        is_decoupled: whether a request may get more than one response.
        rows_of: the rows of a request that is being handled.
        check_response: returns a response as it may leave.
        answer: from an error to an error response, counted.
        count: counts one request.
        note_progress: told of every response.
        end: ends a request that nobody can answer any more.

    Attributes:
        current: requests of the execute that runs now.
        awaited: requests of each execute whose coroutine is being awaited.
        taken: senders of those requests.
        rescheduled: those of them that Triton is to bring again.
        unanswered: requests of executes that are over.
    """

    def __init__(
        self,
        request_class: Any,
        final_flag: int,
        *,
        is_decoupled: bool,
        rows_of: Callable[[Any], int],
        check_response: Callable[[Any, int], Any],
        answer: Callable[[BaseException], Any],
        count: Callable[[str], None],
        note_progress: Callable[[], None],
        end: Callable[[Any], None],
    ) -> None:
        self.final_flag, self.is_decoupled = final_flag, is_decoupled
        self.check_response, self.answer = check_response, answer
        self.count, self.note_progress = count, note_progress
        self._rows_of = rows_of
        self._class = request_class
        self._methods = {name: getattr(request_class, name) for name in WATCHED if hasattr(request_class, name)}
        # By the request itself: it is hashed by identity, and id() would be an audit event.
        self.taken: dict[Any, GuardedSender] = {}
        self.rescheduled: set[Any] = set()
        self.current: list[Any] = []
        self.awaited: list[list[Any]] = []
        self.unanswered = Unanswered(end)

    def install(self) -> None:
        """Have Triton's class hand out guarded senders."""
        taken, rescheduled, methods = self.taken, self.rescheduled, self._methods
        unanswered = self.unanswered.senders

        def get_response_sender(request: Any) -> Any:
            known = taken.get(request) or unanswered.get(request)
            if known is None:
                held = getrefcount(request)
                sender = methods["get_response_sender"](request)
                held = getrefcount(request) - held
                known = GuardedSender(sender, self, request, self._rows_of(request), held)
                if any(request in requests for requests in (self.current, *self.awaited)):
                    taken[request] = known
            return known

        def set_release_flags(request: Any, *args: Any, **kwargs: Any) -> Any:
            rescheduled.add(request)
            return methods["set_release_flags"](request, *args, **kwargs)

        for name, replacement in zip(WATCHED, (get_response_sender, set_release_flags), strict=True):
            if name in methods:
                setattr(self._class, name, replacement)

    def remove(self) -> None:
        """Give Triton's class its own methods back."""
        for name, method in self._methods.items():
            setattr(self._class, name, method)
        self.unanswered.close()

    def leave(self, request: Any) -> None:
        """Execute is over and leaves a request to its sender, where it has not asked for it again."""
        if request not in self.rescheduled:
            sender = request.get_response_sender()
            if not sender.is_finished:
                self.unanswered.add(request, sender)

    def end(self, requests: list[Any]) -> None:
        """An execute is over."""
        self.awaited = [each for each in self.awaited if each is not requests]
        for request in requests:
            self.taken.pop(request, None)
            self.rescheduled.discard(request)
