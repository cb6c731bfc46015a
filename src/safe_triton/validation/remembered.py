"""What was found good before, so that the next time costs one look-up: bounded, whatever the traffic."""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

MAX_REMEMBERED = 512
"""Combinations that are remembered as good, so that no traffic can make the memory grow."""


class Remembered(dict[K, V], Generic[K, V]):
    """Combinations of names, rows and shapes that passed, each with what is worth keeping of it."""

    def note(self, key: K, value: V) -> None:
        """Remember one more; the bound is kept by forgetting all."""
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        self[key] = value
