"""The table of attempts: what each tries, how its success shows, what it needs to be alive without protection."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tests.attacks.confined.world import SECRET, World

Effect = Literal["secret", "true", "changed", "victim", "contact"]
Run = Callable[[World], object]


@dataclass(frozen=True)
class Attempt:
    """One attempt.

    Args:
        name: unique.
        category: files, processes, network, code, resources or leaks.
        run: what is tried; the result counts for the effects ``secret`` and ``true``.
        effect: ``secret``: the result holds the secret; ``true``: the result is true; ``changed``: files outside the
            scratch folder changed; ``victim``: the other process was touched; ``contact``: something arrived at a socket.
        needs: ``root``, ``user`` (not root) or ``x86_64``: without it the attempt cannot succeed anywhere.
    """

    name: str
    category: str
    run: Run
    effect: Effect
    needs: str = ""


ATTEMPTS: dict[str, Attempt] = {}


def attempt(effect: Effect = "secret", needs: str = "") -> Callable[[Run], Run]:
    """Add a function to the table; its module is the category."""

    def add(run: Run) -> Run:
        name = run.__name__
        assert name not in ATTEMPTS, name
        ATTEMPTS[name] = Attempt(name, run.__module__.rpartition(".")[2].removeprefix("on_"), run, effect, needs)
        return run

    return add


def outcome_of(run: Run, world: World) -> dict[str, object]:
    """What a run gave: whether it held the secret, whether it was true, or the error."""
    try:
        result = run(world)
    except BaseException as error:
        return {"error": f"{type(error).__name__}: {error}"}
    held = isinstance(result, bytes | bytearray) and SECRET in result
    return {"secret": held, "true": bool(result)}


LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long

_X86_64 = platform.machine() == "x86_64"
# name: (x86-64, aarch64)
NR = {
    name: numbers[0 if _X86_64 else 1]
    for name, numbers in {
        "openat": (257, 56),
        "fork": (57, -1),
        "vfork": (58, -1),
        "clone": (56, 220),
        "clone3": (435, 435),
        "execveat": (322, 281),
        "tkill": (200, 130),
        "tgkill": (234, 131),
        "rt_sigqueueinfo": (129, 138),
        "pidfd_open": (434, 434),
        "pidfd_send_signal": (424, 424),
        "pidfd_getfd": (438, 438),
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "prlimit64": (302, 261),
        "memfd_create": (319, 279),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "perf_event_open": (298, 241),
        "bpf": (321, 280),
        "inotify_init1": (294, 26),
        "inotify_add_watch": (254, 27),
        "fanotify_init": (300, 262),
        "mq_open": (240, 180),
        "shmget": (29, 194),
        "msgget": (68, 186),
        "semget": (64, 190),
        "unshare": (272, 97),
        "setns": (308, 268),
        "chroot": (161, 51),
        "mount": (165, 40),
        "personality": (135, 92),
        "openat2": (437, 437),
        "fchmodat2": (452, 452),
        "renameat2": (316, 276),
        "name_to_handle_at": (303, 264),
        "open_by_handle_at": (304, 265),
        "setuid": (105, 146),
        "capset": (126, 91),
        "sched_setscheduler": (144, 119),
        "seccomp": (317, 277),
        "syslog": (103, 116),
        "process_madvise": (440, 440),
        "kcmp": (312, 272),
        "sethostname": (170, 161),
        "mknodat": (259, 33),
        "gettid": (186, 178),
        "userfault": (323, 282),
    }.items()
}


def call(name: str, *arguments: object) -> int:
    """Make a system call through the C library; raises OSError."""
    converted = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    result: int = LIBC.syscall(ctypes.c_long(NR[name]), *converted)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
