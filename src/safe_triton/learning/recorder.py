"""``Recorder``: answers the kernel's reports of every recorded process, and remembers what they were about."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import shutil
import socket
import struct
import tempfile
import threading
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from safe_triton.learning import notify
from safe_triton.learning.calls import call_names, read_uses
from safe_triton.learning.folders import is_beneath
from safe_triton.learning.peek import Peek
from safe_triton.learning.records import Moment, Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from typing_extensions import Self

SCRATCH = "scratch"
"""Folder beside the listener's socket that recorded processes use for temporary files."""

# Compiled modules are not written under the confinement either; Python goes on, and the repository stays as it is.
_COMPILED_FOLDER = "__pycache__"
_MESSAGE_BYTES = 2 * 4096


@dataclass
class _Recorded:
    """One process of Triton's, and the children it started."""

    entry: str
    instance: str
    place: str  # the entry file's real folder
    process: int = 0
    has_begun: bool = False


class Recorder:
    """Listens on :attr:`address` from ``with`` to its end, on a thread of its own.

    Args:
        moment: what the processes do; "load" is reported as "start" until the model's file is opened.

    Does not cover:
        Calls of a process after the recorder has stopped: they fail with ENOSYS. Stop the server first.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="safe-triton-learn-")).resolve()
        self.address = self.folder / "socket"
        self.scratch = self.folder / SCRATCH
        self.moment: Moment = "load"
        self.unread = 0
        self._counts: Counter[tuple[str, Record]] = Counter()
        self._listeners: dict[int, _Recorded] = {}
        self._names = call_names(os.uname().machine)
        self._thread = threading.Thread(target=self._run, name="safe-triton-recorder", daemon=True)
        self._wake_reader, self._wake_writer = os.pipe()

    def __enter__(self) -> Self:
        self.scratch.mkdir()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(self.address))
        self._socket.listen()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.write(self._wake_writer, b"\0")
        self._thread.join()
        for descriptor in (*self._listeners, self._wake_reader, self._wake_writer):
            os.close(descriptor)
        self._socket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def records(self, model: Path) -> list[Record]:
        """Return what the processes of the model in a folder did, without what precedes the model's file."""
        folder = f"{model}{os.sep}"
        return [
            replace(record, times=times)
            for (entry, record), times in self._counts.items()
            if entry.startswith(folder) and record.moment != "start"
        ]

    def peak_memory_bytes(self, model: Path) -> int:
        """Return the largest address space that a running process of a model has had."""
        folder = f"{model}{os.sep}"
        found = [_peak_bytes(row.process) for row in list(self._listeners.values()) if row.entry.startswith(folder)]
        return max(found, default=0)

    def _run(self) -> None:
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.register(self._wake_reader, select.POLLIN)
        while True:
            for descriptor, events in poll.poll():
                if descriptor == self._wake_reader:
                    return
                if descriptor == self._socket.fileno():
                    for listener in self._accept():
                        poll.register(listener, select.POLLIN)
                elif events & select.POLLIN:
                    self._answer(descriptor)
                else:  # every process that it reports about has ended
                    poll.unregister(descriptor)
                    os.close(descriptor)
                    del self._listeners[descriptor]

    def _accept(self) -> Iterator[int]:
        connection, _ = self._socket.accept()
        with connection:
            text, listeners, _, _ = socket.recv_fds(connection, _MESSAGE_BYTES, 1)
        entry, _, instance = os.fsdecode(text).partition("\0")
        for listener in listeners:
            self._listeners[listener] = _Recorded(entry, instance, os.path.realpath(os.path.dirname(entry)))
            yield listener

    def _answer(self, listener: int) -> None:
        report = notify.receive(listener)
        if report is None:
            return
        refusal = 0
        try:
            refusal = self._remember(self._listeners[listener], report)
        except (OSError, ValueError, OverflowError, struct.error):
            if notify.is_valid(listener, report):
                self.unread += 1
        finally:
            with contextlib.suppress(OSError):
                notify.answer(listener, report, refusal)

    def _remember(self, recorded: _Recorded, report: notify.Report) -> int:
        """Count what a call uses; return the error number that it should fail with, 0 to let it happen."""
        name = self._names.get(report.number, f"call {report.number}")
        peek = Peek(report.thread)
        if not recorded.process:  # the launcher becoming the stub
            recorded.process = peek.process()
            return 0
        uses = read_uses(name, report, peek)
        if any(kind in {"create", "write"} and _COMPILED_FOLDER in target.split(os.sep) for kind, target in uses):
            return errno.EACCES
        for kind, target in uses:
            if not recorded.has_begun and is_beneath(target, recorded.place):
                recorded.has_begun = True
            moment = self.moment if recorded.has_begun else "start"
            self._counts[recorded.entry, Record(kind, target, moment, recorded.instance)] += 1
        return 0


def _peak_bytes(process: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{process}/status", encoding="ascii", errors="replace") as file:
        for line in file:
            if line.startswith("VmPeak:"):
                return int(line.split()[1]) << 10
    return 0
