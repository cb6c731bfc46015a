"""Check that a confinement holds: one refused attempt of each kind.

Each attempt is harmless even where nothing stops it: it carries arguments that the kernel would refuse anyway, with
another error, or only opens something for reading.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass

from safe_triton import _libc
from safe_triton.confinement import landlock_abi as rights
from safe_triton.confinement.grants import Grant, is_granted
from safe_triton.confinement.syscall_numbers import NUMBERS, number_of
from safe_triton.confinement.threads import Call
from safe_triton.policy.sandbox import SandboxPolicy

_ROOT = bytearray(b"/\0")
_PR_GET_SECCOMP = 21  # include/uapi/linux/prctl.h
_UNGRANTED = ("/", "/proc/self/environ", "/etc/passwd", "/var")


@dataclass(frozen=True)
class Attempt:
    """A forbidden call.

    Args:
        what: for messages.
        number: the call.
        arguments: harmless ones.
        refusal: the error number that only the confinement gives.
    """

    what: str
    number: int
    arguments: tuple[int | bytes, ...]
    refusal: int


def ungranted_path(grants: tuple[Grant, ...]) -> str | None:
    """Return a path that exists everywhere and that the grants do not cover; ``None`` when they cover all of these."""
    return next((path for path in _UNGRANTED if not is_granted(path, rights.READ_FILE, grants)), None)


def root_call(grants: tuple[Grant, ...]) -> tuple[Call, ...]:
    """Return the attempt that each thread makes after Landlock: list ``/``; empty where that is granted."""
    if is_granted("/", rights.READ_DIR, grants):
        return ()
    number = number_of("openat", os.uname().machine) or 0
    at_cwd = -100 & 0xFFFF_FFFF_FFFF_FFFF
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    return (Call("listing /", (number, at_cwd, _libc.address_of(_ROOT), flags, 0), expected=-errno.EACCES),)


def attempts(policy: SandboxPolicy, machine: str, *, is_first_filter: bool = True) -> tuple[Attempt, ...]:
    """Return one forbidden call of each kind that seccomp has to refuse under ``policy``; pure.

    Args:
        policy: what the process may touch.
        machine: as ``os.uname`` names it.
        is_first_filter: whether no other filter was there before. One that knows no x32, as systemd's with
            ``SystemCallArchitectures=native``, ends the process for a call of it, instead of refusing it.
    """

    def attempt(what: str, name: str, *arguments: int | bytes) -> tuple[Attempt, ...]:
        number = number_of(name, machine)
        return () if number is None else (Attempt(what, number, arguments, errno.EPERM),)

    huge = 1 << 20  # no such descriptor, option or request
    found = [
        *attempt("a foreign signal", "kill", os.getppid(), 65),  # 65: no such signal
        *attempt("a thread's signal elsewhere", "tkill", 0, 0),
        *attempt("ptrace", "ptrace", huge, 0, 0, 0),
        *attempt("a new namespace", "unshare", -1),
        *attempt("chmod", "fchmod", -1, 0),
        *attempt("a terminal's input", "ioctl", -1, 0x5412, 0),
        *attempt("a terminal's input, high bit", "ioctl", -1, 0x1_0000_5412, 0),
        *attempt("a signal by descriptor", "fcntl", -1, 8, 0),
        *attempt("a datagram pair", "socketpair", 1, 2, 0, 0),
        *attempt("bpf", "bpf", -1, 0, 0),
        *attempt("keys", "keyctl", -1),
        *attempt("mount", "mount", 0, 0, 0, 0, 0),
        *attempt("a kernel personality", "personality", 0xFFFF_FFFF),
    ]
    if not policy.network:
        found += attempt("a socket", "socket", 2, huge, 0)
    if not policy.processes:
        # CLONE_NEWNS | CLONE_FS: the kernel itself says EINVAL.
        found += attempt("a process", "clone", 0x20200, 0, 0, 0, 0)
        found += attempt("a program", "execve", 0, 0, 0)
    if not policy.executable_memory:
        found += attempt("executable memory", "mprotect", 0, 0, 4)
    if machine == "x86_64" and is_first_filter:
        found.append(Attempt("x32", 0x4000_0000 + NUMBERS["getpid"][0], (), errno.EPERM))
    return tuple(found)


def has_filter() -> bool:
    """Tell whether a seccomp filter holds for this thread already."""
    try:
        return _libc.syscall(number_of("prctl", os.uname().machine) or 0, _PR_GET_SECCOMP, 0, 0, 0, 0) != 0
    except OSError:
        return True  # one that does not tell


def check_attempts(found: tuple[Attempt, ...]) -> list[str]:
    """Make each attempt and return those that were not refused by the confinement."""
    return [attempt.what for attempt in found if _outcome(attempt) != attempt.refusal]


def check_files(path: str | None) -> list[str]:
    """Try to open a path that is not granted, for reading only; return what went wrong."""
    if path is None:
        return []
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return [] if error.errno == errno.EACCES else [f"opening {path} gave {error.strerror}"]
    return [f"opening {path}"]


def _outcome(attempt: Attempt) -> int:
    try:
        _libc.syscall(attempt.number, *attempt.arguments)
    except OSError as error:
        return error.errno or 0
    return 0
