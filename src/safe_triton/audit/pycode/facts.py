"""What reading a model's Python gave."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from safe_triton.audit.deployment.words import Word
from safe_triton.audit.finding import Finding


@dataclass(frozen=True, kw_only=True)
class BlsCall:
    """One call of another model.

    Args:
        model: its name, nothing when the code computes it.
        version: as written; ``"unpinned"`` when absent or -1; nothing when the code computes it.
        line: of the call.
        path: of the file, as shown to the user.
    """

    model: str | None
    version: int | Literal["unpinned"] | None
    line: int
    path: str


@dataclass(frozen=True, kw_only=True)
class Started:
    """One command that starts a server or a container.

    Args:
        words: with their lines; a single one is a text for a shell.
        path: of the file, as shown to the user.
    """

    words: tuple[Word, ...]
    path: str


@dataclass(frozen=True, kw_only=True)
class PythonFacts:
    """Findings and calls of an entry file and all that it imports from the repository."""

    findings: tuple[Finding, ...] = ()
    bls_calls: tuple[BlsCall, ...] = ()
    started: tuple[Started, ...] = ()
