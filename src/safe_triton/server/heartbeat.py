"""Reading the heartbeats of model processes: evidence from the inside of whether one hangs."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from safe_triton.server.in_stub import EXECUTE_SINCE, OPEN_SINCE, PROGRESS, WATCHES_ITSELF

_CELLS = struct.Struct("=4Q")
_SHORTENED = (1, 0, 1, 0)
"""Stands for a file that its model has shortened: busy for ever, without progress."""


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What one model process says about itself.

    Args:
        pid: of the process.
        model: that it serves; who it is comes from its launcher, not from the process.
        version: of the model.
        instance: Triton's name of the instance.
        busy_since_s: when the oldest call in progress began, on the clock of :func:`time.monotonic`; ``None``: idle.
        progress: grows with every call that ended, every response that was sent, and every quarter of a second while
            the event loop of asynchronous calls turns. A process is not hung while it grows.
        watches_itself: whether the model's class is one of the SDK's, with a watchdog of its own.
        hard_deadline_s: of that watchdog, once the model serves.

    Does not cover:
        A process that lies: its model can write any number into its own file.
    """

    pid: int
    model: str
    version: str
    instance: str
    busy_since_s: float | None
    progress: int
    watches_itself: bool = False
    hard_deadline_s: float | None = None


def read_beats(folder: Path) -> list[Beat]:
    """Read the heartbeats of all processes that live; the files of those that do not are removed.

    Args:
        folder: :attr:`safe_triton.server.workspace.Workspace.beats`.
    """
    found = []
    for path in sorted(folder.iterdir()):
        pid, model, version, instance = path.name.split("|")
        if not os.path.exists(f"/proc/{pid}/exe"):  # a zombie has none: nobody is there to beat
            path.unlink(missing_ok=True)
            continue
        try:
            with path.open("rb") as file:  # only the beginning: its model can make the file as long as it likes
                text = file.read(_CELLS.size)
        except OSError:
            continue
        cells = _CELLS.unpack(text) if len(text) == _CELLS.size else _SHORTENED
        since_ns = min((cells[place] for place in (EXECUTE_SINCE, OPEN_SINCE) if cells[place]), default=0)
        found.append(
            Beat(
                pid=int(pid),
                model=model,
                version=version,
                instance=instance,
                busy_since_s=since_ns / 1e9 if since_ns else None,
                progress=cells[PROGRESS],
                watches_itself=bool(cells[WATCHES_ITSELF]),
                hard_deadline_s=cells[WATCHES_ITSELF] / 1000 if cells[WATCHES_ITSELF] > 1 else None,
            )
        )
    return found
