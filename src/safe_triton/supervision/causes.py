"""Why a process ended, as far as its exit status tells: one short word for metrics, one line for the log."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

from safe_triton.confinement.launcher import FAILED_STATUS
from safe_triton.runtime.deadline import END_SIGNAL, EXIT_STATUS

KINDS = {
    "deadline": "its code did not come back within the hard deadline",
    "exit": "it ended by itself",
    "launcher": "its launcher could not start it",
    "load": "it did not load",
    "load_timeout": "its load took too long",
    "memory": "it held more memory than it may",
    "oom": "the kernel ended it for memory",
    "rlimit": "it reached a resource limit",
    "seccomp": "it made a forbidden system call",
    "server": "tritonserver ended or stood still because of it, as far as can be known",
    "signal": "a signal ended it",
    "stopped": "a signal had stopped it",
    "unknown": "how it ended is not known",
}
"""Every kind of cause, as metrics and ``safe-triton status`` name it."""


@dataclass(frozen=True)
class Cause:
    """Why something ended: one of :data:`KINDS`, and a text for the operator."""

    kind: str
    text: str


def cause_of(status: int | None, *, is_oom: bool = False) -> Cause:
    """Return the cause that an exit status tells.

    Args:
        status: exit status, or minus the number of the signal; None: nobody could read it.
        is_oom: whether the kernel killed something in this control group for memory since the last death.

    Does not cover:
        Which of several processes the kernel killed for memory, when some die at once; a model that picks its status.
    """
    if status is None:
        return Cause("unknown", "ended; its status could not be read")
    if status == EXIT_STATUS:
        return Cause("deadline", "ended itself at the hard deadline")
    if status == FAILED_STATUS:
        return Cause("launcher", "the launcher could not start it")
    if status >= 0:
        return Cause("exit", f"exit status {status}")
    number = -status
    name = _signal_name(number)
    if number == END_SIGNAL:
        return Cause("deadline", "the kernel's timer ended it at the hard deadline")
    if number == signal.SIGKILL and is_oom:
        return Cause("oom", "SIGKILL; the kernel killed for memory")
    if number == signal.SIGSYS:
        return Cause("seccomp", f"{name}: a forbidden system call")
    if number in {signal.SIGXCPU, signal.SIGXFSZ}:
        return Cause("rlimit", f"{name}: a resource limit")
    return Cause("signal", name)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


class OomCounter:
    """Tells whether the kernel has killed for memory in this program's control group since the last question.

    Does not cover:
        Control groups of version 1, and hosts without the memory controller: then never.
    """

    def __init__(self) -> None:
        self._path = _memory_events()
        self._last = self._count()

    def has_grown(self) -> bool:
        """Whether the count of kills has grown since the last call."""
        before, self._last = self._last, self._count()
        return self._last > before

    def _count(self) -> int:
        try:
            text = self._path.read_text(encoding="ascii") if self._path is not None else ""
        except OSError:
            return 0
        words = text.split()
        return int(words[words.index("oom_kill") + 1]) if "oom_kill" in words else 0


def _memory_events() -> Path | None:
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("0::"):
            path = Path("/sys/fs/cgroup") / line[3:].lstrip("/") / "memory.events"
            return path if path.is_file() else None
    return None
