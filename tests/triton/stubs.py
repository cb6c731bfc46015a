"""Model processes of a running server from the outside: who they are, how they ended, what they logged."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from safe_triton.server import TritonServer


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


def has_ended(process: psutil.Process) -> bool:
    """Whether a process ran to its end; its parent may not have collected it yet."""
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def exit_status(process: psutil.Process) -> int:
    """How an uncollected process ended: its status, or minus the signal's number."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return os.waitstatus_to_exitcode(int(fields[-1]))  # the last field is exit_code: proc_pid_stat(5)


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
        found = [json.loads(line) for line in self.text.splitlines() if line.startswith("{")]
        return [line for line in found if all(line.get(name) == value for name, value in fields.items())]

    def wait_for(self, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """The first such line, as soon as it is there."""
        for _ in until(timeout_s):
            if found := self.lines(**fields):
                return found[0]
        raise AssertionError(f"no log line with {fields} within {timeout_s} s")


def until(timeout_s: float, pause_s: float = 0.02) -> Iterator[float]:
    """Yield the seconds gone by, again and again, until the time is over."""
    began = time.monotonic()
    while (gone_s := time.monotonic() - began) < timeout_s:
        yield gone_s
        time.sleep(pause_s)
