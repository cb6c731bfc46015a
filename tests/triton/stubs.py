"""Model processes of a running server from the outside: who they are, how they ended, what they logged."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from safe_triton.server import TritonServer

PATIENCE_S = 90.0
"""How long a test waits for what takes a moment, or seconds, on a quiet machine."""


def stubs_of(server: TritonServer, model: str) -> list[psutil.Process]:
    """The processes of one model, in the order of their start."""
    found = []
    for child in psutil.Process(server.pid).children():
        with contextlib.suppress(psutil.Error):
            files = [Path(argument) for argument in child.cmdline() if argument.endswith("/model.py")]
            if files and files[0].parent.parent.name == model:
                found.append(child)
    return sorted(found, key=lambda child: child.create_time())


def stub_of(server: TritonServer, model: str) -> psutil.Process:
    """The only process of one model."""
    (found,) = stubs_of(server, model)
    return found


def descendants(pid: int, word: str = "") -> list[psutil.Process]:
    """The processes below one that run now, or those of them with a word in their command lines."""
    found = []
    with contextlib.suppress(psutil.Error):
        for process in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # a helper that lives for a moment
                if word in " ".join(process.cmdline()):
                    found.append(process)
    return found


def has_ended(process: psutil.Process) -> bool:
    """Whether a process ran to its end; its parent may not have collected it yet."""
    try:
        return not process.is_running() or bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def exit_status(process: psutil.Process) -> int | None:
    """How an uncollected process ended: its status, or minus the signal's number; None where it was collected."""
    try:
        fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return None
    return os.waitstatus_to_exitcode(int(fields[-1])) if process.is_running() else None  # exit_code: proc_pid_stat(5)


@dataclass
class LogMark:
    """A place in a server's log: its end, unless another is given."""

    server: TritonServer
    start: int = -1

    def __post_init__(self) -> None:
        if self.start < 0:
            self.start = self.server.log_bytes()

    @property
    def text(self) -> str:
        """What was written since."""
        return self.server.log_text(since_bytes=self.start)

    def lines(self, **fields: Any) -> list[dict[str, Any]]:
        """This package's lines since then that have these fields; one that is no JSON fails the test."""
        return [line for line in json_lines(self.text) if fields.items() <= line.items()]

    def wait_for(self, **fields: Any) -> dict[str, Any]:
        """The first such line, as soon as it is there."""
        wait_until(lambda: bool(self.lines(**fields)), lambda: f"a log line with {fields}")
        return self.lines(**fields)[0]


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects in a log, one a line; the last line only where it is whole, since somebody may be writing it."""
    return [json.loads(line) for line in text.rpartition("\n")[0].splitlines() if line.startswith("{")]


def until(timeout_s: float = PATIENCE_S, pause_s: float = 0.02) -> Iterator[float]:
    """Yield the seconds gone by, again and again, until the time is over."""
    began = time.monotonic()
    while (gone_s := time.monotonic() - began) < timeout_s:
        yield gone_s
        time.sleep(pause_s)


def wait_until(
    holds: Callable[[], bool], say: Callable[[], object] = lambda: "", *, timeout_s: float = PATIENCE_S
) -> float:
    """Wait until something holds; the seconds it took.

    Args:
        holds: asked again and again.
        say: what a failure shows, asked for then.
        timeout_s: seconds until it fails.
    """
    for gone_s in until(timeout_s, pause_s=0.05):
        if holds():
            return gone_s
    raise AssertionError(f"not within {timeout_s:g} s: {say()}")
