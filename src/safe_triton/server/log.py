"""Reading tritonserver's log: what is loading, what failed and why, without tracebacks."""

from __future__ import annotations

import contextlib
import json
import os
import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

KEPT_BYTES = 1 << 20
"""How much of the end of a log is kept once its file is gone."""

MOST_BYTES = 64 << 20
"""Length of a log file at which it is put aside; the one put aside before is removed then."""

# Releases differ in the quotes around a message; what a line starts with depends on --log-format.
_LOADING = re.compile(r'\bloading: (?P<name>[^"]+):(?P<version>\d+)"?\s*$')
_LOADED = re.compile(r"successfully loaded '(?P<name>[^']+)'")
_FAILED = re.compile(r"failed to load '(?P<name>[^']+)'(?: version \d+: (?P<reason>.*))?")
_POLL_FAILED = re.compile(r"Poll failed for model directory '(?P<name>[^']+)': (?P<reason>.*)")
_FRAME = re.compile(r"^\s*(?P<folder>\S.*/)?(?P<file>[^/]+\.py)\((?P<line>\d+)\): ", re.MULTILINE)
_LIBRARY = re.compile(r"/lib(?:64)?/python3")
_PREFIX = re.compile(r"^(?:[EWI]\d{4} \S+|\S+Z [EWI]) \d+ \S+\] ")
_BIND = re.compile(r"already in use|address in use|failed to (?:bind|start)[^\n]*service", re.IGNORECASE)
_LOADER = re.compile(r"error while loading shared libraries: .*|version `\S+' not found.*")
_ABORT = re.compile(r"terminate called after throwing.*|^\s+what\(\):.*", re.MULTILINE)


class ServerLog:
    """A growing log file and the models' states according to it.

    Args:
        path: the file; one put aside is beside it, with ``.1`` at the end of its name.
        most_bytes: length at which the file is put aside; the disk holds at most twice as much.

    Positions count every byte since the first, also those whose file is gone.
    """

    def __init__(self, path: Path, *, most_bytes: int = MOST_BYTES) -> None:
        self.path = path
        self.loading: set[str] = set()
        self.loaded: set[str] = set()
        self.failed: dict[str, str] = {}
        self.last_line = ""
        self._aside = path.with_name(f"{path.name}.1")
        self._most_bytes = most_bytes
        self._first = 0  # the position of the file's first byte
        self._lock = threading.Lock()
        self._offset = 0
        self._rest = b""
        self._kept: tuple[int, bytes] | None = None
        self.pump: Callable[[], None] = lambda: None
        """Has whoever appends do it now; called before anything is read."""

    def append(self, data: bytes) -> None:
        """Add to the file. What a full disk does not take is lost: a server never waits for its log."""
        with self._lock, contextlib.suppress(OSError):
            if self._file_bytes() + len(data) > self._most_bytes:
                data = self._put_aside() + data
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)

    def _put_aside(self) -> bytes:
        """Start a new file, and return the line that says what is gone."""
        dropped = self._aside.stat().st_size if self._aside.exists() else 0
        self._first += self._file_bytes()
        self.path.replace(self._aside)
        line = {"level": "warning", "message": "log full: its oldest part was removed", "dropped_bytes": dropped}
        return json.dumps(line).encode() + b"\n" if dropped else b""

    def _file_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def update(self) -> None:
        """Take in what was written since the last call."""
        self.pump()
        with self._lock:
            start, new = self._read(self._offset)
        self._offset = start + len(new)
        *lines, self._rest = (self._rest + new).split(b"\n")
        for line in lines:
            self._take(line.decode("utf-8", "replace"))

    def _take(self, line: str) -> None:
        text = _PREFIX.sub("", line).strip().strip('"')
        if text and text[0] not in "+|":
            self.last_line = text[:300]
        if match := _LOADING.search(line):
            self.loading.add(match["name"])
        elif match := _LOADED.search(line):
            self.loading.discard(match["name"])
            self.loaded.add(match["name"])
            self.failed.pop(match["name"], None)
        elif match := _FAILED.search(line) or _POLL_FAILED.search(line):
            self.loading.discard(match["name"])
            if match["reason"]:
                self.failed[match["name"]] = logged_reason(match["reason"])
            else:
                self.failed.setdefault(match["name"], "")

    def text(self, *, since_bytes: int = 0) -> str:
        """The log from ``since_bytes`` on, at most its last MiB."""
        start, found = self._end(since_bytes) if self._kept is None else self._kept
        return found[max(0, since_bytes - start) :].decode("utf-8", "replace")

    def size_bytes(self) -> int:
        """Bytes written so far."""
        if self._kept is not None:
            return self._kept[0] + len(self._kept[1])
        self.pump()
        with self._lock:
            return self._first + self._file_bytes()

    def keep(self) -> None:
        """Keep the end of the log in memory: its file is about to go."""
        if self._kept is None:
            self._kept = self._end(0)

    def _end(self, since_bytes: int) -> tuple[int, bytes]:
        return self._read(max(since_bytes, self.size_bytes() - KEPT_BYTES))

    def _read(self, start: int) -> tuple[int, bytes]:
        """What is on disk from a position on, and the position of its first byte."""
        found = b""
        aside_bytes = self._aside.stat().st_size if self._aside.exists() else 0
        start = max(start, self._first - aside_bytes)
        for path, first in ((self._aside, self._first - aside_bytes), (self.path, self._first)):
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                file.seek(max(0, start - first))
                found += file.read()
        return start, found


def logged_reason(reason: str) -> str:
    """:func:`short_reason` of what stands in a line of the log, where quotes and line ends are escaped."""
    return short_reason(reason.strip('"').replace("\\n", "\n").replace('\\"', '"'))


def short_reason(reason: str) -> str:
    """One line for a person: the message, and the file name and line where a model's own code raised it."""
    message: str = next((line.strip() for line in reason.splitlines() if line.strip()), "")
    frames = list(_FRAME.finditer(reason.partition("\nAt:")[2]))
    if not frames:
        return message
    frame = next((frame for frame in frames if not _LIBRARY.search(frame["folder"] or "")), frames[0])
    return f"{message} (at {frame['file']} line {frame['line']})"


def death_reason(text: str) -> str:
    """Why a server that ended says it ended: its last error, without the usage text that follows a wrong option."""
    for pattern in (r"^error: .*", r"^.*\bunrecognized option .*", r"^Error: .*(?=\nUsage:)", _LOADER.pattern):
        if found := re.findall(pattern, text, re.MULTILINE):
            return str(found[-1]).strip()
    if found := _ABORT.findall(text):
        return " ".join(part.strip() for part in found[-2:])
    lines = [line for line in text.splitlines() if line.strip() and line[0] not in "+|"]
    errors = [line for line in lines if line.startswith("E")] or lines
    return _PREFIX.sub("", errors[-1]).strip().strip('"') if errors else "it printed nothing"


def is_port_taken(text: str) -> bool:
    """Whether a server ended because another program has one of its ports."""
    return _BIND.search(text) is not None


def abort_text(text: str) -> str:
    """What a model process printed when it aborted, or an empty string."""
    return " ".join(part.strip() for part in _ABORT.findall(text)[-2:])
