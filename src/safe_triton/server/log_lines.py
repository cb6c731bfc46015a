"""Lines of a server's log: kept whole, and as JSON for programs that collect logs."""

from __future__ import annotations

import datetime as dt
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal", "V": "debug"}

# What --log-format=ISO8601 writes: time, level, process, place in the source, text.
_TRITON = re.compile(r"^(?P<time>\S+Z) (?P<level>[IWEFV]) (?P<pid>\d+) (?P<source>[^\s\]]+)\] (?P<text>.*)$", re.DOTALL)


def whole_lines(listener: Callable[[bytes], None]) -> Callable[[bytes], None]:
    """Return a function that takes pieces of one log and passes whole lines on: those of others may come between."""
    rest = b""

    def feed(piece: bytes) -> None:
        nonlocal rest
        complete, newline, rest = (rest + piece).rpartition(b"\n")
        if newline:
            listener(complete + newline)

    return feed


def own_line(level: str, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return one line of this package, of now, without its end.

    Args:
        level: one of the values of :data:`LEVELS`.
        message: what happened.
        fields: the rest; values that JSON knows.
    """
    time = dt.datetime.now(dt.timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return json.dumps({"time": time, "level": level, "message": message, **fields}).encode()


def as_json(line: str) -> str:
    """Return one line of the log as one line of JSON: Triton's own taken apart, this package's as they are.

    Args:
        line: without its end of line.
    """
    if line.startswith("{"):
        try:
            fields = json.loads(line)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return json.dumps(fields)  # nothing in it can end the line early
    match = _TRITON.match(line)
    if match is None:
        return json.dumps({"level": "info", "message": line})
    text = match["text"]
    if len(text) > 1 and text[0] == text[-1] == '"':
        try:
            text = json.loads(text)
        except ValueError:
            text = text[1:-1]
    return json.dumps(
        {
            "time": match["time"],
            "level": LEVELS[match["level"]],
            "message": text,
            "pid": int(match["pid"]),
            "source": match["source"],
        }
    )
