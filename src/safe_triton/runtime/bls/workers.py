"""Threads that wait for other models' answers, so that a late one can be left behind.

``InferenceRequest.exec`` waits inside Triton's C++ code without a time-out, and no signal and no exception ends that
wait; ``timeout`` of a request only bounds its time in a queue, and only where the target's batcher allows that.
"""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Callable
from typing import Any

from safe_triton.errors import BlsDeadlineError, BlsLimitError

LONGEST_POLL_S = 1e6
"""Of one wait: the kernel counts milliseconds in 32 bits."""


class Worker:
    """One thread that runs one function at a time.

    Both sides are woken by an eventfd: writing to one lets go of the GIL, which a lock's release keeps, so that whoever
    wakes would only wait again.
    """

    __slots__ = ("_claim", "_done", "_error", "_function", "_go", "_is_busy", "_poll", "_pool", "_result", "_thread")

    def __init__(self, pool: Workers, number: int) -> None:
        self._pool = pool
        self._go = os.eventfd(0, os.EFD_CLOEXEC)
        self._done = os.eventfd(0, os.EFD_CLOEXEC)
        # Edge-triggered: each write wakes one wait, and nobody has to read.
        self._poll = select.epoll(1, select.EPOLL_CLOEXEC)
        self._poll.register(self._done, select.EPOLLIN | select.EPOLLET)
        self._function: Callable[[], Any] | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        # Whoever takes its one element decides: the thread that the function came back, the waiter that it is left
        # behind. Taking it is one step under the GIL, where a lock would be two more switches.
        self._claim: list[None] = []
        self._is_busy = False
        self._thread = threading.Thread(target=self._run, name=f"safe_triton-bls-{number}", daemon=True)
        self._thread.start()

    def start(self, function: Callable[[], Any] | None) -> None:
        """Hand over a function; ``None`` ends the thread."""
        self._claim = [None]
        self._function = function
        self._is_busy = True
        os.eventfd_write(self._go, 1)

    def wait(self, left_s: float) -> Any:
        """Return the function's result, or raise what it raised.

        Raises:
            BlsDeadlineError: it did not come back in time; the thread is left to it.
        """
        if not self._poll.poll(min(left_s, LONGEST_POLL_S), 1):
            if self._left_behind():
                raise BlsDeadlineError("bls.deadline: the called model did not answer in time")
            self._poll.poll(-1, 1)  # it came back in this very moment
        error, result = self._error, self._result
        self._error = self._result = self._function = None
        self._is_busy = False
        self._pool.take_back(self)
        if error is not None:
            raise error
        return result

    def join(self, timeout_s: float) -> None:
        """Wait for the thread's end."""
        self._thread.join(timeout_s)

    def abandon(self) -> None:
        """Leave the thread to its function, whatever comes of it; nothing to do where that was waited for."""
        if self._is_busy and not self._left_behind():
            # It came back, and who waited was interrupted: nobody knows how far, so the thread is not used again.
            self.start(None)

    def _left_behind(self) -> bool:
        """Return whether the function had not come back; then its thread ends when it does."""
        try:
            self._claim.pop()
        except IndexError:
            return False
        self._is_busy = False
        self._function = None  # a thread that has not begun never does
        return True

    def _run(self) -> None:
        wait, go, wake, done = os.eventfd_read, self._go, os.eventfd_write, self._done
        while True:
            wait(go)
            function, claim = self._function, self._claim
            if function is None:
                break
            try:
                self._result = function()
            except BaseException as error:
                self._error = error
            del function
            try:
                claim.pop()
            except IndexError:
                break
            wake(done, 1)
        self._poll.close()
        os.close(done)
        os.close(go)
        self._pool.forget()


class Workers:
    """A pool that grows with the calls that wait at a time.

    Args:
        most: threads, those with late calls included.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._idle: list[Worker] = []
        self._counting = threading.Lock()

    def start(self, function: Callable[[], Any]) -> Worker:
        """Run a function in a thread.

        Raises:
            BlsLimitError: all threads wait for earlier calls.
        """
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = self._grow()
        worker.start(function)
        return worker

    def run(self, function: Callable[[], Any], left_s: float) -> Any:
        """Run a function in a thread and wait for it; see :meth:`Worker.wait`."""
        worker = self.start(function)
        try:
            return worker.wait(left_s)
        except BaseException:  # the request's deadline may interrupt the wait
            worker.abandon()
            raise

    def take_back(self, worker: Worker) -> None:
        """Keep a worker whose function has come back for the next call."""
        self._idle.append(worker)

    def forget(self) -> None:
        """Count a thread less: it ends."""
        with self._counting:
            self._count -= 1

    def close(self) -> None:
        """End the threads that wait for nothing."""
        while self._idle:
            worker = self._idle.pop()
            worker.start(None)
            worker.join(1.0)

    def _grow(self) -> Worker:
        with self._counting:
            if self._count >= self._most:
                raise BlsLimitError(f"bls.limit: {self._count} earlier calls have not come back")
            self._count += 1
            number = self._count
        try:
            return Worker(self, number)
        except BaseException:
            self.forget()
            raise
