"""Deadlines of the author's code: an interrupt at the soft one, the end of the process at the hard one.

The request path only writes a start time into a list. Everything else happens in a thread, and, when the GIL is held
and no thread can run, in a kernel timer. Between calls the thread keeps pushing it forward; a call that starts when
that is overdue pushes it itself, since calls that hold the GIL may follow each other without the thread getting a turn.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from types import FrameType
from typing import Any, TypeVar

from safe_triton._libc import timer_create
from safe_triton.errors import DeadlineExceeded
from safe_triton.runtime.log import ModelLogger

T = TypeVar("T")

INTERRUPT_SIGNAL = int(signal.SIGRTMIN) + 9
"""Sent to the main thread; its handler raises :class:`DeadlineExceeded`. Real-time signals have no other user here."""

END_SIGNAL = int(signal.SIGRTMIN) + 10
"""Sent by the kernel timer; its default action ends the process, whatever holds the GIL."""

EXIT_STATUS = 70
"""Exit status at the hard deadline (``EX_SOFTWARE`` of sysexits.h)."""

TICK_S = 1.0
"""Longest sleep of the watchdog, and how long calls may start under one setting of the kernel timer."""

LEAST_TICK_S = 0.01
"""Shortest sleep of an idle watchdog, and the most by which a shorter deadline is missed."""

REPEAT_S = 0.1
"""Pause between two interrupts of code that swallowed the first one."""

SLACK_S = 1.0
"""How much later than the thread the kernel timer acts at least: the thread also writes a line to the log."""

SHORTENED = "deadline.exceeded: the time that was left for this answer is over"
"""What a client reads where not the model's own deadline has passed: its caller's, or the one of a whole stream."""

LONGEST_S = 10.0 * 365 * 86400
"""An unlimited deadline as the kernel's timers can hold it."""


def late(error: BaseException) -> DeadlineExceeded:
    """Return what an exception after the soft deadline stands for, also where the code wrapped the interrupt."""
    if isinstance(error, DeadlineExceeded):
        return error
    deadline = DeadlineExceeded()
    deadline.__cause__ = error
    return deadline


class Watchdog:
    """Watches one call of the author's code at a time.

    Args:
        logger: told before the process ends.
        ends_process: whether the hard deadline may end this process; ``False`` in tests without Triton.

    Attributes:
        slot: ``[start, due, caller_due]``. The request path writes ``monotonic()`` before the author's code and
            ``0.0`` after it; if that time is ``due`` or later, it calls :meth:`rearm` first. ``caller_due`` is set by
            :meth:`shorten` for one call, and set back to ``0.0`` after it.
        on_late: told from the watchdog's thread, with the call's start, that a call has passed its soft deadline and
            goes on; again and again while it does.
        before_end: called before the hard deadline ends the process from the watchdog's thread.

    Does not cover:
        Module level of ``model.py``, which runs before ``initialize``. Soft deadlines of code that holds the GIL or
        of threads that the author starts. A process that is stopped, or whose GIL is held outside a call, for longer
        than the hard deadline: its time goes on, and the kernel timer ends it.
    """

    def __init__(self, logger: ModelLogger, *, ends_process: bool) -> None:
        self.slot: list[float] = [0.0, 0.0, 0.0]
        self._logger = logger
        self._ends_process = ends_process
        self.on_late: Callable[[float], None] | None = None
        self.before_end: Callable[[], object] = lambda: None
        self._soft_s = LONGEST_S
        self._hard_s = LONGEST_S
        self._last_interrupt = 0.0
        self._wake = threading.Event()
        self._arming = threading.Lock()
        self._stopped = False
        self._timer = timer_create(END_SIGNAL) if ends_process else None
        self._main = threading.main_thread().ident or 0
        self._interrupts = threading.current_thread() is threading.main_thread()
        self._previous = signal.signal(INTERRUPT_SIGNAL, self._interrupt) if self._interrupts else None
        self._thread = threading.Thread(target=self._run, name="safe_triton-watchdog", daemon=True)

    def start(self, soft_s: float, hard_s: float) -> None:
        """Start watching.

        Args:
            soft_s: seconds until the author's code is interrupted.
            hard_s: seconds until the process ends.
        """
        self.use(soft_s, hard_s)
        self._thread.start()

    def use(self, soft_s: float, hard_s: float) -> None:
        """Change both deadlines, for the next call."""
        self._soft_s = min(soft_s, LONGEST_S)
        self._hard_s = min(hard_s, LONGEST_S) if self._ends_process else LONGEST_S
        self.rearm()
        self._wake.set()

    def rearm(self) -> None:
        """Set the kernel timer so that each call that starts within the next tick has its whole time."""
        with self._arming:
            due = monotonic() + TICK_S
            if self._timer is not None:
                self._timer.arm(TICK_S + self._hard_s + SLACK_S)
            self.slot[1] = due

    def shorten(self, due_s: float) -> None:
        """Have the call that runs next, or now, interrupted earlier; the end of the process stays where it was.

        A client can ask for that too, so it must never end a process.

        Args:
            due_s: when it is to be interrupted, as ``monotonic()`` counts; 0.0 for no other time than the deadline.
        """
        self.slot[2] = due_s
        if due_s and due_s - monotonic() < TICK_S:
            self._wake.set()

    def is_late(self, start: float, now: float) -> bool:
        """Tell whether a call that began at ``start`` has passed its soft deadline, or its caller's, at ``now``."""
        return bool(start) and (now - start >= self._soft_s or 0.0 < self.slot[2] <= now)

    def run(self, function: Callable[..., T], *arguments: Any) -> T:
        """Run code that is, or may call, the author's, with the deadlines that hold now.

        Raises:
            DeadlineExceeded: it took too long, also where it turned the interrupt into an exception of its own.
        """
        slot = self.slot
        if slot[0] or threading.get_ident() != self._main:
            # On behalf of a call that runs already, whose time goes on; or in a thread, which has no deadline.
            return function(*arguments)
        start = monotonic()
        if start >= slot[1]:
            self.rearm()
        slot[0] = start
        try:
            return function(*arguments)
        except DeadlineExceeded:
            raise
        except BaseException as error:
            slot[0] = 0.0
            if self.is_late(start, monotonic()):
                raise late(error) from error
            raise
        finally:
            slot[0] = slot[2] = 0.0

    def stop(self) -> None:
        """Stop watching and give the signal back."""
        self._stopped = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)
        with self._arming:
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.delete()
        if self._interrupts and threading.current_thread() is threading.main_thread():
            signal.signal(INTERRUPT_SIGNAL, self._previous or signal.SIG_DFL)

    def is_overdue(self) -> bool:
        """Tell whether the call that runs now has passed its soft deadline."""
        return self.is_late(self.slot[0], monotonic())

    def _interrupt(self, _signal: int, _frame: FrameType | None) -> None:
        # Runs in the main thread between two of its bytecodes: the slot tells for sure whether the author's code runs.
        now = monotonic()
        if self.is_overdue() and now - self._last_interrupt >= REPEAT_S:
            self._last_interrupt = now
            raise DeadlineExceeded if now - self.slot[0] >= self._soft_s else DeadlineExceeded(SHORTENED)

    def _run(self) -> None:
        while not self._stopped:
            self._wake.clear()
            wait_s = self._look()
            self._wake.wait(wait_s)

    def _look(self) -> float:
        start = self.slot[0]
        if not start:
            self.rearm()
            shortened_s = self.slot[2] - monotonic() if self.slot[2] else TICK_S
            return max(min(self._soft_s, self._hard_s, TICK_S, shortened_s), LEAST_TICK_S)
        now = monotonic()
        age = now - start
        if self.slot[0] != start:
            return 0.0  # that call ended while this thread waited for the GIL: its age is nobody's
        if age >= self._hard_s:
            self._end(age)
        left_s = self._hard_s - age
        caller_due_s = self.slot[2]
        soft_left_s = min(self._soft_s - age, caller_due_s - now) if caller_due_s else self._soft_s - age
        if soft_left_s > 0:
            return min(soft_left_s, left_s, TICK_S)
        if self.on_late is not None:
            self.on_late(start)
        if self._interrupts:
            signal.pthread_kill(self._main, INTERRUPT_SIGNAL)
        return min(REPEAT_S, left_s)

    def _end(self, age: float) -> None:
        try:
            self._logger.error(
                "hard deadline: the model's code did not come back; this process ends",
                extra={
                    "fields": {
                        "reason": "deadline.hard",
                        "elapsed_ms": round(age * 1000),
                        "allowed_ms": round(self._hard_s * 1000),
                    }
                },
            )
            sys.stderr.flush()
            self.before_end()
        finally:
            os._exit(EXIT_STATUS)
