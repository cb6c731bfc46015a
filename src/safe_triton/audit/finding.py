"""What a check found: a rule, a place, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How bad a finding is; the names are SARIF's, with ``info`` for its ``note``."""

    INFO = 1
    WARNING = 2
    ERROR = 3

    @property
    def word(self) -> str:
        """The level as it is written: ``info``, ``warning`` or ``error``."""
        return self.name.lower()


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One place that breaks one rule.

    Args:
        rule: name of the rule.
        path: file or folder, as the user gave it and below; ``-`` for standard input.
        message: one line: what was found, and what is allowed.
        line: 1 for the first line of the file; 0 when the finding concerns the whole file.
        column: 1 for the first character; 0 when unknown.
        level: when it differs from the rule's.
        fix: concrete text to paste here; empty: the rule's.
    """

    rule: str
    path: str
    message: str
    line: int = 0
    column: int = 0
    level: Level | None = None
    fix: str = ""
