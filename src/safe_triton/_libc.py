"""System calls that Python does not offer: ``openat2``, POSIX timers, and a plain ``syscall`` for confinement.

The only importer of ``ctypes``. It holds numbers and structures of the kernel's interface and no decision: what is
allowed is decided by the callers. Linux on x86-64 and aarch64; elsewhere every call raises ``OSError`` with
``ENOSYS``. The C library is loaded at the first call, not at import.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import math
import mmap
import os
import platform
import sys
from typing import Any

__all__ = [
    "CLOCK_MONOTONIC",
    "RESOLVE_BENEATH",
    "RESOLVE_IN_ROOT",
    "RESOLVE_NO_MAGICLINKS",
    "RESOLVE_NO_SYMLINKS",
    "RESOLVE_NO_XDEV",
    "Timer",
    "address_of",
    "copy_to",
    "is_supported",
    "openat2",
    "preload",
    "syscall",
    "timer_create",
]

# include/uapi/linux/openat2.h
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

CLOCK_MONOTONIC = 1
_SIGEV_SIGNAL = 0

# include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl: calls added after 2019 share one number.
_NR_OPENAT2 = {"x86_64": 437, "aarch64": 437}


class _OpenHow(ctypes.Structure):
    """``struct open_how``."""

    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class _SigEvent(ctypes.Structure):
    """``struct sigevent`` of 64-bit Linux: 64 bytes, of which SIGEV_SIGNAL reads three fields."""

    _fields_ = [
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("_pad", ctypes.c_int * 12),
    ]


class _TimeSpec(ctypes.Structure):
    """``struct timespec`` of 64-bit Linux."""

    _fields_ = [("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long)]


class _ITimerSpec(ctypes.Structure):
    """``struct itimerspec``: a zero interval fires once."""

    _fields_ = [("it_interval", _TimeSpec), ("it_value", _TimeSpec)]


def is_supported() -> bool:
    """Whether the structures and numbers here are those of this machine (64-bit Linux on x86-64 or aarch64)."""
    return sys.platform == "linux" and platform.machine() in _NR_OPENAT2 and ctypes.sizeof(ctypes.c_void_p) == 8


@functools.lru_cache(maxsize=1)
def _libc() -> Any:
    """The process's C library with the argument types of the calls used here."""
    if not is_supported():
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "timer_create"):  # glibc before 2.34 keeps the timers in librt
        timers = ctypes.CDLL("librt.so.1", use_errno=True)
        for name in ("timer_create", "timer_settime", "timer_delete"):
            setattr(libc, name, getattr(timers, name))
    libc.syscall.restype = ctypes.c_long
    libc.timer_create.argtypes = [ctypes.c_int, ctypes.POINTER(_SigEvent), ctypes.POINTER(ctypes.c_void_p)]
    libc.timer_create.restype = ctypes.c_int
    libc.timer_settime.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_ITimerSpec), ctypes.c_void_p]
    libc.timer_settime.restype = ctypes.c_int
    libc.timer_delete.argtypes = [ctypes.c_void_p]
    libc.timer_delete.restype = ctypes.c_int
    return libc


@functools.lru_cache(maxsize=1)
def _holding_libc() -> Any:
    """The same library, called with the interpreter's lock held."""
    _libc()
    libc = ctypes.PyDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    return libc


def _os_error() -> OSError:
    """The error that the last call left in this thread."""
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def openat2(dirfd: int, path: str | bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """Open ``path`` relative to ``dirfd`` under resolution rules that the kernel keeps.

    Args:
        dirfd: descriptor of the directory where resolution starts.
        path: relative name; ``str`` is encoded as the file system's names are.
        flags: ``O_*`` bits; unknown bits are refused by the kernel, unlike in ``open``.
        mode: permission bits, only with ``O_CREAT`` or ``O_TMPFILE``, otherwise 0.
        resolve: ``RESOLVE_*`` bits.
    Returns:
        A new descriptor that the caller closes.
    Raises:
        OSError: what the kernel answered; ``ENOSYS`` before Linux 5.6 and on machines this module does not know,
            ``EXDEV`` for a name that leaves the directory, ``ELOOP`` for a link.
        ValueError: the name holds a NUL byte.
    Source:
        Linux ``openat2(2)``, 5.6 and later.
    """
    encoded = os.fsencode(path)
    if b"\0" in encoded:  # C would silently stop there and open another file
        raise ValueError("embedded null byte")
    how = _OpenHow(flags, mode, resolve)
    libc = _libc()
    descriptor: int = libc.syscall(
        ctypes.c_long(_NR_OPENAT2[platform.machine()]),
        ctypes.c_int(dirfd),
        ctypes.c_char_p(encoded),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if descriptor < 0:
        raise _os_error()
    return descriptor


class Timer:
    """A one-shot timer of this process on CLOCK_MONOTONIC; its expiry makes the kernel send one signal to the process.

    The signal leaves the kernel whatever the interpreter does, so a signal with its default action ends a process whose
    threads never release the GIL. Made by `timer_create`.

    Does not cover:
        A signal that every thread blocks. A process that is stopped. A child made by ``fork``, which inherits no
        timers. ``execve``, which deletes them.
    """

    __slots__ = ("_id",)

    def __init__(self, timer_id: int | None) -> None:
        self._id: ctypes.c_void_p | None = ctypes.c_void_p(timer_id)

    def arm(self, seconds: float) -> None:
        """Expire once, ``seconds`` from now; an armed timer is moved.

        Args:
            seconds: above 0 and finite; less than a nanosecond counts as one.
        Raises:
            ValueError: not above 0, not finite, or the timer was deleted.
            OSError: the kernel refused.
        """
        if not 0 < seconds < math.inf:  # zero would disarm without a word
            raise ValueError(f"seconds must be above 0 and finite, not {seconds!r}")
        whole = int(seconds)
        rest_ns = min(max(int((seconds - whole) * 1e9), 0 if whole else 1), 999_999_999)
        if self._id is None:
            raise ValueError("the timer was deleted")
        when = _ITimerSpec(_TimeSpec(0, 0), _TimeSpec(whole, rest_ns))
        if _libc().timer_settime(self._id, 0, ctypes.byref(when), None) != 0:
            raise _os_error()

    def delete(self) -> None:
        """Remove the timer from the kernel; a second call does nothing.

        Raises:
            OSError: the kernel refused.
        """
        timer_id, self._id = self._id, None
        if timer_id is not None and _libc().timer_delete(timer_id) != 0:
            raise _os_error()


def timer_create(signal_number: int) -> Timer:
    """Make a disarmed timer whose expiry sends ``signal_number`` to this process.

    Args:
        signal_number: 1 to SIGRTMAX.
    Returns:
        A timer that lives until `Timer.delete`, ``execve`` or the end of the process.
    Raises:
        OSError: ``EINVAL`` for no such signal, ``EAGAIN`` when the timers of the user are used up (RLIMIT_SIGPENDING),
            ``ENOSYS`` on machines this module does not know.
    Source:
        POSIX ``timer_create``; Linux ``timer_create(2)``.
    """
    event = _SigEvent(None, signal_number, _SIGEV_SIGNAL)
    timer_id = ctypes.c_void_p()
    if _libc().timer_create(CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer_id)) != 0:
        raise _os_error()
    return Timer(timer_id.value)


def address_of(buffer: bytearray | memoryview | mmap.mmap) -> int:
    """Return the address of a writable buffer's memory.

    It stays valid only as long as the buffer is kept and not resized.
    """
    return ctypes.addressof(ctypes.c_char.from_buffer(buffer))


def copy_to(address: int, data: bytes) -> None:
    """Write ``data`` at an address that the caller has mapped writable; a wrong address ends the process."""
    ctypes.memmove(address, data, len(data))


def preload(name: str) -> bool:
    """Load a shared library now, so that the C library finds it loaded later; ``False`` when there is none."""
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True


def syscall(number: int, *arguments: int | bytes | bytearray) -> int:
    """Make one system call by number, without letting another Python thread run: for calls that do not block.

    Args:
        number: the call's number on this machine.
        arguments: up to six; an ``int`` is passed as a 64-bit register, ``bytes`` and ``bytearray`` by address.
            The kernel may write into a ``bytearray``.
    Returns:
        What the kernel returned.
    Raises:
        OSError: what the kernel answered; ``ENOSYS`` on machines this module does not know.
    """
    converted: list[object] = []
    for argument in arguments:
        if isinstance(argument, int):
            converted.append(ctypes.c_uint64(argument & 0xFFFF_FFFF_FFFF_FFFF))
        elif isinstance(argument, bytes):
            converted.append(ctypes.c_char_p(argument))
        else:
            converted.append((ctypes.c_char * len(argument)).from_buffer(argument))
    result: int = _holding_libc().syscall(ctypes.c_long(number), *converted)
    if result == -1:
        raise _os_error()
    return result
