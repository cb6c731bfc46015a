"""Shared memory of dead models, which tritonserver keeps mapped for as long as it lives: its pages are given back."""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

SETTLED_S = 10.0
"""A model's new version has served for so long: the one whose process died has been taken down."""

MOST_KEPT = 256
"""Regions that wait at a time, each with a descriptor; of further ones the pages stay until tritonserver ends."""


@dataclass
class _Region:
    model: str
    descriptor: int
    ready_since_s: float | None = None


class DeadRegions:
    """Removes the regions of dead processes, and later what they hold.

    The pages must not go before Triton has taken down the instance that used them: it still reads its locks there.

    Source:
        Measured on 2.51.0: after a stub's death its region stays mapped until tritonserver ends.
    """

    def __init__(self) -> None:
        self._waiting: list[_Region] = []

    def add(self, region: Path, model: str) -> None:
        """Remove a dead process's region by name; what it holds waits for :meth:`tick`."""
        if len(self._waiting) < MOST_KEPT:
            with contextlib.suppress(OSError):  # it is gone, or no descriptor is free
                self._waiting.append(_Region(model, os.open(region, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)))
        region.unlink(missing_ok=True)

    def tick(self, now_s: float, is_ready: Callable[[str], bool]) -> None:
        """Give back the pages of regions whose model has served again for :data:`SETTLED_S`."""
        for region in tuple(self._waiting):
            if not is_ready(region.model):
                region.ready_since_s = None
            elif region.ready_since_s is None:
                region.ready_since_s = now_s
            elif now_s - region.ready_since_s >= SETTLED_S:
                self._waiting.remove(region)
                _empty(region.descriptor)

    def clear(self) -> None:
        """Forget all: tritonserver has ended, and its mappings with it."""
        while self._waiting:
            os.close(self._waiting.pop().descriptor)


def _empty(descriptor: int) -> None:
    """Free every page of a file in memory; its size stays, so whoever maps it reads zeros instead of dying."""
    try:
        size_bytes = os.fstat(descriptor).st_size
        if size_bytes:
            with mmap.mmap(descriptor, size_bytes) as mapped:
                mapped.madvise(mmap.MADV_REMOVE)
    finally:
        os.close(descriptor)
