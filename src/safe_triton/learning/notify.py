"""The kernel's reports of system calls: reading one, asking whether it still stands, answering it."""

from __future__ import annotations

import errno
import fcntl
import struct
from dataclasses import dataclass

# include/uapi/linux/seccomp.h: struct seccomp_notif, struct seccomp_notif_resp, and the commands over them.
_REPORT = struct.Struct("=QIIiIQ6Q")
_ANSWER = struct.Struct("=QqiI")
_RECEIVE = 0xC050_2100
_SEND = 0xC018_2101
_IS_VALID = 0x4008_2102
_CONTINUE = 1


@dataclass(frozen=True)
class Report:
    """One call that waits for an answer.

    Args:
        id: the kernel's number of the report.
        thread: id of the thread that makes the call.
        number: the system call.
        arguments: its six registers.
    """

    id: int
    thread: int
    number: int
    arguments: tuple[int, ...]


def receive(listener: int) -> Report | None:
    """Read the next report; ``None`` when its process died meanwhile.

    Raises:
        OSError: what the kernel answered.
    """
    buffer = bytearray(_REPORT.size)  # the kernel insists on zeros
    try:
        fcntl.ioctl(listener, _RECEIVE, buffer, True)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINTR}:
            return None
        raise
    number_id, thread, _flags, number, _arch, _pointer, *arguments = _REPORT.unpack(buffer)
    return Report(number_id, thread, number, tuple(arguments))


def is_valid(listener: int, report: Report) -> bool:
    """Whether the caller still waits: only then does its thread id mean the same process."""
    try:
        fcntl.ioctl(listener, _IS_VALID, struct.pack("=Q", report.id))
    except OSError:
        return False
    return True


def answer(listener: int, report: Report, refusal: int = 0) -> None:
    """Let the call happen, or make it fail with an error number; a caller that died meanwhile needs no answer."""
    words = _ANSWER.pack(report.id, 0, -refusal, 0 if refusal else _CONTINUE)
    try:
        fcntl.ioctl(listener, _SEND, bytearray(words), True)
    except OSError as error:
        if error.errno not in {errno.ENOENT, errno.EINPROGRESS}:
            raise
