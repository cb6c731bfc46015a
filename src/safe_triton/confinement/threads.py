"""Run system calls on every thread of this process, whatever each is doing.

Landlock (before ABI 8) and capabilities are per thread. As libpsx does, a signal handler of a few machine instructions
makes the calls on each thread in turn; it needs no lock, no interpreter and no stack of its own. The signal is the one
that the C library keeps for exactly this (``setuid`` on all threads), so no thread can have blocked it.

A thread that is made meanwhile inherits from its maker; passes over ``/proc/self/task`` repeat until two in a row
find nobody new and lose nobody. Nothing here lets another Python thread run on purpose: all calls hold the interpreter.

Source:
    libpsx of libcap, ``psx.c``; glibc ``nptl/nptl_setxid.c``; Linux ``rt_sigaction(2)``.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from safe_triton import _libc
from safe_triton.confinement.syscall_numbers import number_here

if TYPE_CHECKING:
    from typing_extensions import Self

_SIGSETXID = 33
_SA_RESTART, _SA_ONSTACK, _SA_RESTORER = 0x1000_0000, 0x0800_0000, 0x0400_0000
_ALL_SIGNALS = 0xFFFF_FFFF_FFFF_FFFF
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30
_USUAL_SLACK_NS = 50_000
_MARKS = itertools.count(1)
_CLEAN_PASSES = 2
_AT_EMPTY_PATH, _STATX_NLINK = 0x1000, 4
_PAGE = mmap.PAGESIZE
_PATIENCE_S = 10.0  # a thread in an uninterruptible system call does not answer; then the caller fails

_HEADER = 64  # bytes: count of calls, done flag
_SLOT = 64  # bytes: number, six arguments, result
_PLACE = bytes.fromhex("8877665544332211")  # replaced by the data page's address

_HANDLERS = {
    # push rbx, r12, r13; rbx = data; r12 = count; r13 = slots; while r12: load rax rdi rsi rdx r10 r8 r9; syscall;
    # store rax; next; then done = 1; pop; ret
    "x86_64": bytes.fromhex(
        "53415441554"
        "8bb88776655443322114c8b234c8d6b404d85e4742b498b4500498b7d08498b7510498b55184d8b55204d8b45284d8b4d300f05"
        "498945384983c54049ffccebd0c7430801000000415d415c5bc3"
    ),
    # stp x19, x20; x19 = data; x20 = count; x9 = slots; while x20: load x8 x0-x5; svc; store x0; next; then done = 1
    # with release order; ldp; ret; the address
    "aarch64": bytes.fromhex(
        "f353bfa973020058740240f969020191540100b4280140f9208540a9228d41a9249542a9010000d4201d00f929010191940600d1"
        "f7ffff17210080526a22009141fd9f88f353c1a8c0035fd61f2003d58877665544332211"
    ),
}
_RESTORERS = {"x86_64": bytes.fromhex("b80f0000000f05"), "aarch64": b""}  # mov eax, 15 (rt_sigreturn); syscall
_RESTORER_OFFSET = 128


class ThreadError(Exception):
    """A thread could not be reached, or its call had another outcome than the one expected."""


@dataclass(frozen=True)
class Call:
    """A system call and the outcome that counts as success.

    Args:
        what: for messages.
        arguments: number first; addresses must stay valid while the calls run.
        expected: what the kernel returns, a negative error number for a refusal.
        is_right: looked at after each thread, for what a call writes into memory.
    """

    what: str
    arguments: tuple[int, ...]
    expected: int = 0
    is_right: Callable[[], bool] = lambda: True


class AllThreads:
    """The handler while it is installed; a context manager.

    Made before anything is forbidden: a policy without executable memory would refuse its page later.

    Raises:
        OSError: no executable page can be had.
    """

    def __init__(self) -> None:
        self._machine = os.uname().machine
        self._data = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._code = mmap.mmap(-1, _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._before = bytearray(32)
        self._is_answered = True
        self._folder = os.open("/proc/self/task", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        code = _HANDLERS[self._machine].replace(_PLACE, struct.pack("=Q", _libc.address_of(self._data)))
        restorer = _RESTORERS[self._machine]
        self._code[: len(code)] = code
        self._code[_RESTORER_OFFSET : _RESTORER_OFFSET + len(restorer)] = restorer
        address = _libc.address_of(self._code)
        _libc.syscall(number_here("mprotect"), address, _PAGE, mmap.PROT_READ | mmap.PROT_EXEC)
        flags = _SA_RESTART | _SA_ONSTACK | (_SA_RESTORER if restorer else 0)
        # struct kernel_sigaction: handler, flags, restorer, mask
        action = struct.pack("=QQQQ", address, flags, address + _RESTORER_OFFSET if restorer else 0, _ALL_SIGNALS)
        _libc.syscall(number_here("rt_sigaction"), _SIGSETXID, action, self._before, 8)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._folder)
        if self._is_answered:
            _libc.syscall(number_here("rt_sigaction"), _SIGSETXID, bytes(self._before), 0, 8)
            self._code.close()
            self._data.close()
        else:  # a thread may still run the handler: leave it and its pages in place
            _KEPT.append(self)

    def run(self, calls: tuple[Call, ...]) -> int:
        """Make ``calls``, which children inherit, on every thread, the calling one last; return how many threads.

        Raises:
            ThreadError: a thread did not answer in time, or a call had another outcome.
            OSError: no ``/proc``.
        """
        # A thread that inherited must not be restricted twice: layers are counted. So every thread that is done gets a
        # mark that its children inherit: a timer slack of its own, some nanoseconds from the usual value.
        mark = _USUAL_SLACK_NS + next(_MARKS)
        marking = Call("timer slack", (number_here("prctl"), _PR_SET_TIMERSLACK, mark))
        asking = Call("timer slack", (number_here("prctl"), _PR_GET_TIMERSLACK))
        done: set[int] = set()
        clean, end, is_first = 0, time.monotonic() + _PATIENCE_S, True
        while clean < _CLEAN_PASSES:
            before = self._count()
            others = self._others()
            # The listing is no snapshot: a thread that ends while it is read can hide another.
            is_clean = before == len(others) + 1 == self._count()
            for thread in others:
                # Listed before the first mark was set, a thread cannot have inherited it.
                found = [0] if is_first else self._run_on(thread, (asking,))
                if found is None:  # ended, and may have made another before
                    is_clean = False
                elif found[0] != mark:
                    is_clean = False
                    self._check(thread, (*calls, marking))
                done.add(thread)
            clean, is_first = clean + 1 if is_clean else 0, False
            if time.monotonic() > end:
                raise ThreadError("new threads start faster than they can be restricted")
        for call in (*calls, marking):
            _check(call, _own_outcome(call))
        return len([thread for thread in self._others() if thread in done]) + 1

    def check(self, calls: tuple[Call, ...]) -> int:
        """Make ``calls``, which change nothing, on every thread there is now; return how many threads.

        Raises:
            ThreadError: a thread did not answer in time, or a call had another outcome.
            OSError: no ``/proc``.
        """
        others = self._others()
        for thread in others:
            self._check(thread, calls)
        for call in calls:
            _check(call, _own_outcome(call))
        return len(others) + 1

    def _others(self) -> list[int]:
        own = _libc.syscall(number_here("gettid"))
        return [thread for thread in self._listing() if thread != own]

    def _count(self) -> int:
        """How many threads the kernel counts: the links of the folder that lists them, without its own two."""
        found = bytearray(256)
        _libc.syscall(number_here("statx"), self._folder, b"", _AT_EMPTY_PATH, _STATX_NLINK, found)
        return int(struct.unpack_from("=I", found, 16)[0]) - 2

    def _listing(self) -> list[int]:
        """The threads, read without letting another Python thread run meanwhile."""
        _libc.syscall(number_here("lseek"), self._folder, 0, os.SEEK_SET)
        threads, buffer = [], bytearray(1 << 15)
        while length := _libc.syscall(number_here("getdents64"), self._folder, buffer, len(buffer)):
            position = 0
            while position < length:
                # struct linux_dirent64: inode, offset, record length, type, name
                record = struct.unpack_from("=H", buffer, position + 16)[0]
                name = buffer[position + 19 : buffer.index(0, position + 19)]
                if name.isdigit():
                    threads.append(int(name))
                position += record
        return threads

    def _check(self, thread: int, calls: tuple[Call, ...]) -> None:
        for call, outcome in zip(calls, self._run_on(thread, calls) or (), strict=False):
            _check(call, outcome)

    def _run_on(self, thread: int, calls: tuple[Call, ...]) -> list[int] | None:
        """Make the calls on one thread and return their outcomes; ``None`` when it has ended."""
        struct.pack_into("=QQ", self._data, 0, len(calls), 0)
        for index, call in enumerate(calls):
            arguments = [argument & _ALL_SIGNALS for argument in call.arguments]
            arguments += [0] * (7 - len(arguments))
            struct.pack_into("=8Q", self._data, _HEADER + _SLOT * index, *arguments, 0)
        if not _send(thread, _SIGSETXID):
            return None
        self._is_answered = False
        end = time.monotonic() + _PATIENCE_S
        while struct.unpack_from("=I", self._data, 8)[0] == 0:
            if not _send(thread, 0):
                self._is_answered = True
                return None
            if time.monotonic() > end:
                raise ThreadError(f"a thread did not answer within {_PATIENCE_S:g} s")
            _libc.syscall(number_here("sched_yield"))
        self._is_answered = True
        return [struct.unpack_from("=q", self._data, _HEADER + _SLOT * index + 56)[0] for index in range(len(calls))]


_KEPT: list[AllThreads] = []


def _send(thread: int, signal: int) -> bool:
    """Send a signal to one thread; ``False`` when it has ended."""
    try:
        _libc.syscall(number_here("tgkill"), os.getpid(), thread, signal)
    except ProcessLookupError:
        return False
    return True


def _own_outcome(call: Call) -> int:
    try:
        return _libc.syscall(*call.arguments)
    except OSError as error:
        return -(error.errno or 0)


def _check(call: Call, outcome: int) -> None:
    if outcome == call.expected and call.is_right():
        return
    if outcome >= 0:
        raise ThreadError(f"{call.what}: not as required on a thread")
    raise ThreadError(f"{call.what} failed on a thread: {errno.errorcode.get(-outcome, outcome)}")
