"""Locks of ``multiprocessing`` in a process whose named semaphores are refused."""

from __future__ import annotations

import json
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from safe_triton.server.thread_locks import RECURSIVE, ThreadLock, install_thread_locks

SEMAPHORE = 1


def in_a_thread(what: Any) -> Any:
    """Return what a call returns in another thread."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(what()))
    thread.start()
    thread.join()
    return found[0]


def module(*, refuses: bool) -> Any:
    """What stands for ``_multiprocessing``."""

    def semaphore(*_: Any) -> str:
        if refuses:
            raise PermissionError
        return "the kernel's"

    semaphore.SEM_VALUE_MAX, semaphore._rebuild = 7, None  # type: ignore[attr-defined]
    return SimpleNamespace(SemLock=semaphore)


def granted(processes: object) -> dict[str, str]:
    """The environment of a process that the launcher started."""
    return {"SAFE_TRITON_GRANT": json.dumps({"granted": {"processes": processes}})}


class TestSemaphore:
    def test_counts(self) -> None:
        """As many as there are may acquire it; any thread may release it."""
        lock = ThreadLock(SEMAPHORE, 2, 2)
        assert [lock.acquire(False) for _ in range(3)] == [True, True, False]
        assert lock._is_zero()
        in_a_thread(lock.release)
        assert lock._get_value() == 1

    def test_has_a_most(self) -> None:
        """More releases than acquisitions are an error of the caller's."""
        with pytest.raises(ValueError, match="too many"):
            ThreadLock(SEMAPHORE, 1, 1).release()

    def test_times_out(self) -> None:
        """Waiting ends in time."""
        lock = ThreadLock(SEMAPHORE, 0, 1)
        assert not lock.acquire(True, 0.01)


class TestRecursive:
    def test_belongs_to_its_thread(self) -> None:
        """The same thread acquires it again, another one does not."""
        lock = ThreadLock(RECURSIVE, 1, 1)
        with lock:
            assert lock.acquire()
            assert not in_a_thread(lambda: lock.acquire(False))
            lock.release()
            assert lock._count() == 1
        assert in_a_thread(lambda: lock.acquire(False))

    def test_only_its_thread_releases_it(self) -> None:
        """Releasing what is not held is an error of the caller's."""
        with pytest.raises(AssertionError, match="not owned"):
            ThreadLock(RECURSIVE, 1, 1).release()


class TestInstall:
    def make(self, environment: dict[str, str], *, refuses: bool = True) -> Any:
        found = module(refuses=refuses)
        install_thread_locks(found, environment)
        assert found.SemLock.SEM_VALUE_MAX == 7
        return found.SemLock(SEMAPHORE, 1, 1, "/name", True)

    def test_where_semaphores_are_refused(self) -> None:
        """A thread pool finds locks that its threads share."""
        assert isinstance(self.make(granted(False)), ThreadLock)

    def test_where_they_are_not(self) -> None:
        """The kernel's semaphore is used where there is one."""
        assert self.make(granted(False), refuses=False) == "the kernel's"

    @pytest.mark.parametrize("environment", [granted({"reason": "x"}), {}])
    def test_with_processes(self, environment: dict[str, str]) -> None:
        """Another process would not see a thread's lock: the refusal stays."""
        with pytest.raises(PermissionError):
            self.make(environment)
