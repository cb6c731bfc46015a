"""Locks of ``multiprocessing`` for threads alone.

Its thread pools make named semaphores too, which are files in ``/dev/shm`` that the kernel refuses here. Runs in every
Python model's process of a repository view, in the same namespace as ``in_stub.py`` and before it. Standard library
only.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from typing import Any

RECURSIVE = 0
"""``multiprocessing.synchronize.RECURSIVE_MUTEX``; the other kind counts."""


class ThreadLock:
    """What ``_multiprocessing.SemLock`` is, in a process that cannot have children.

    Args:
        kind: :data:`RECURSIVE`, or a semaphore that any thread may release.
        value: how many may acquire it now.
        maxvalue: the most that this may become.
    """

    name = None
    handle = 0

    def __init__(self, kind: int, value: int, maxvalue: int) -> None:
        self.kind, self.maxvalue = kind, maxvalue
        self._value = value
        self._held = 0
        self._holder = 0
        self._changed = threading.Condition()

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Take one; False: none was free in time."""
        with self._changed:
            if not (self.kind == RECURSIVE and self._is_mine()):
                if not self._changed.wait_for(lambda: self._value > 0, timeout if block else 0):
                    return False
                self._value -= 1
            self._held += 1
            self._holder = threading.get_ident()
        return True

    def release(self) -> None:
        """Give one back."""
        with self._changed:
            if self.kind == RECURSIVE:
                if not self._is_mine():
                    raise AssertionError("attempt to release recursive lock not owned by thread")
                self._held -= 1
                if self._held:
                    return
            elif self._value >= self.maxvalue:
                raise ValueError("semaphore or lock released too many times")
            else:
                self._held -= 1
            self._value += 1
            self._changed.notify()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _count(self) -> int:
        return self._held

    def _is_mine(self) -> bool:
        return self._held > 0 and self._holder == threading.get_ident()

    def _get_value(self) -> int:
        return self._value

    def _is_zero(self) -> bool:
        return self._value == 0

    def _after_fork(self) -> None:
        self._held = 0


def install_thread_locks(module: Any, environment: Mapping[str, str] = os.environ) -> None:
    """Have ``multiprocessing`` make such locks where a semaphore is refused and no processes are granted.

    Args:
        module: ``_multiprocessing``.
        environment: with what the launcher says was granted.
    """
    original = module.SemLock

    def make(kind: int, value: int, maxvalue: int, name: str, unlink: bool) -> Any:
        try:
            return original(kind, value, maxvalue, name, unlink)
        except PermissionError:
            grant = json.loads(environment.get("SAFE_TRITON_GRANT", "{}"))
            if grant.get("granted", {}).get("processes", True):
                raise  # another process would not see a thread's lock
            return ThreadLock(kind, value, maxvalue)

    make.SEM_VALUE_MAX = original.SEM_VALUE_MAX  # type: ignore[attr-defined]
    make._rebuild = original._rebuild  # type: ignore[attr-defined]
    module.SemLock = make
