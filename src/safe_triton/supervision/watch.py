"""Waiting for processes to end: one pidfd for each, no polling."""

from __future__ import annotations

import contextlib
import os
import select
import signal


class ProcessWatch:
    """Says which processes have ended, the moment they do.

    A pidfd stands for one process, whoever gets its number later.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._descriptors: dict[int, int] = {}
        self._pids: dict[int, int] = {}
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake_reader, select.EPOLLIN)

    @property
    def pids(self) -> set[int]:
        """The processes that are watched."""
        return set(self._descriptors)

    def add(self, pid: int) -> bool:
        """Watch a process; False if there is none with this number any more."""
        if pid not in self._descriptors:
            try:
                descriptor = os.pidfd_open(pid)
            except OSError:
                return False
            self._descriptors[pid], self._pids[descriptor] = descriptor, pid
            self._poll.register(descriptor, select.EPOLLIN)
        return True

    def wait(self, timeout_s: float) -> list[int]:
        """Return the processes that have ended, each once, as soon as there is one, or nothing after the timeout."""
        ended = []
        for descriptor, _ in self._poll.poll(max(0.0, timeout_s)):
            if descriptor == self._wake_reader:
                with contextlib.suppress(BlockingIOError):
                    os.read(self._wake_reader, 4096)
            else:
                ended.append(self._pids[descriptor])
                self._forget(descriptor)
        return ended

    def kill(self, pid: int) -> None:
        """End a process that is watched, and no other."""
        with contextlib.suppress(ProcessLookupError):
            if pid in self._descriptors:
                signal.pidfd_send_signal(self._descriptors[pid], signal.SIGKILL)

    def wake(self) -> None:
        """Have :meth:`wait` return now; from any thread, and from a signal handler."""
        with contextlib.suppress(OSError):  # full: it returns anyway; closed: nobody waits
            os.write(self._wake_writer, b"!")

    def close(self) -> None:
        """Close every descriptor."""
        for descriptor in tuple(self._pids):
            self._forget(descriptor)
        self._poll.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _forget(self, descriptor: int) -> None:
        del self._descriptors[self._pids.pop(descriptor)]
        os.close(descriptor)
