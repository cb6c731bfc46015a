"""Install a seccomp filter on every thread of this process."""

from __future__ import annotations

import errno
import os
import struct

from safe_triton import _libc
from safe_triton.confinement.bpf import RET_ERRNO
from safe_triton.confinement.syscall_numbers import number_of

# include/uapi/linux/seccomp.h
_SET_MODE_FILTER = 1
_GET_ACTION_AVAILABLE = 2
_ALL_THREADS = 1


def probe() -> str:
    """Ask the kernel whether it can filter with error numbers on all threads: ``""``, or why not."""
    try:
        _call(_GET_ACTION_AVAILABLE, 0, struct.pack("=I", RET_ERRNO))
        _call(_SET_MODE_FILTER, _ALL_THREADS, 0)  # no program: EFAULT, once the flag is accepted
    except OSError as error:
        if error.errno == errno.EFAULT:
            return ""
        return {
            errno.ENOSYS: "the kernel is built without seccomp",
            errno.EINVAL: "the kernel is built without seccomp filters",
            errno.EPERM: "another filter, probably the container's, refuses seccomp",
        }.get(error.errno or 0, f"the kernel answers {errno.errorcode.get(error.errno or 0, 'an error')}")
    return "the kernel accepts a filter without a program"


def install(program: bytes) -> None:
    """Put a filter on every thread; irreversible.

    Args:
        program: packed instructions, see ``bpf.pack``.

    Raises:
        OSError: what the kernel answered; ``EACCES`` without no_new_privs, ``ESRCH`` when a thread has a filter of
        its own.
    """
    buffer = bytearray(program)
    # struct sock_fprog: unsigned short length in instructions, then a pointer
    descriptor = struct.pack("=H6xQ", len(program) // 8, _libc.address_of(buffer))
    thread = _call(_SET_MODE_FILTER, _ALL_THREADS, descriptor)
    if thread:
        raise OSError(errno.ESRCH, f"thread {thread} has another filter")


def _call(operation: int, flags: int, argument: bytes | int) -> int:
    number = number_of("seccomp", os.uname().machine)
    assert number is not None  # noqa: S101 - the call exists on both machines
    return _libc.syscall(number, operation, flags, argument)
