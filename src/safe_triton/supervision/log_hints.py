"""What the server's log says about loads and confinement. Hints only: models write to the same log."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable

from safe_triton.server.log import logged_reason

LOADED = re.compile(rb"successfully loaded '([^'\n]{1,200})'")
CONFINED = re.compile(rb'^\{"level": "(?:info|warning)", "message": "model process is confined".*$', re.MULTILINE)
FAILED = re.compile(rb"failed to load '([^'\n]{1,200})' version \d+: ([^\n]+)")
MOST_MODELS = 10_000
MOST_REASON_BYTES = 4096


class LogHints:
    """Collects hints from the pieces of a log; the pieces come from another thread.

    Args:
        wake: called when there is something to take.

    Does not cover:
        False lines. A model that writes of another one's load can have it counted as served a moment before it is:
        nothing is killed, reloaded or quarantined because of a line.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._loaded: set[str] = set()
        self._gaps: dict[str, tuple[str, ...]] = {}
        self._reasons: dict[str, str] = {}
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        """Take in the next piece of the log."""
        complete, _, rest = (self._rest + piece).rpartition(b"\n")
        self._rest = rest[-4096:]
        loaded = {name.decode("utf-8", "replace") for name in LOADED.findall(complete)}
        gaps = dict(filter(None, map(_gaps, CONFINED.findall(complete))))
        reasons = {
            name.decode("utf-8", "replace"): logged_reason(reason[:MOST_REASON_BYTES].decode("utf-8", "replace"))
            for name, reason in FAILED.findall(complete)
        }
        if loaded or gaps or reasons:
            with self._lock:
                if len(self._loaded) + len(self._gaps) + len(self._reasons) < MOST_MODELS:
                    self._loaded |= loaded
                    self._gaps.update(gaps)
                    self._reasons.update(reasons)
            self._wake()

    def take_loaded(self) -> set[str]:
        """Return the models whose load was logged since the last call."""
        with self._lock:
            taken, self._loaded = self._loaded, set()
        return taken

    @property
    def reasons(self) -> dict[str, str]:
        """Why models did not load when they were last tried, in one line."""
        with self._lock:
            return dict(self._reasons)

    @property
    def gaps(self) -> dict[str, tuple[str, ...]]:
        """What was not enforced when a process started, by instance."""
        with self._lock:
            return {instance: found for instance, found in self._gaps.items() if found}


def _gaps(line: bytes) -> tuple[str, tuple[str, ...]] | None:
    try:
        fields = json.loads(line)
        return str(fields["instance"])[:200], tuple(str(gap)[:200] for gap in fields["gaps"][:20])
    except (ValueError, KeyError, TypeError):
        return None
