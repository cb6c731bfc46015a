"""Plain counters of one model instance; a thread carries them to Triton, never a request."""

from __future__ import annotations


class Stats:
    """Counters since start. Threads of the author's add to them too, by the responses that they send.

    No lock: each addition is one statement without a call, within which CPython (3.10 to 3.13) lets no thread in.

    Attributes:
        outcomes: requests by outcome: ``ok``, ``refused``, ``answered``, ``failed``, ``deadline``, ``cancelled``.
        refusals: refused requests by reason slug.
        warnings: outputs that were passed although they break config.pbtxt, by reason (``protect`` only).
        violations: refused attempts of the model's code by kind.
        gaps: what is not enforced on this instance's process, by mechanism.
        calls: ``[calls, seconds]`` by the name of the model that was called.
        sequences: sequences by what became of them: ``started``, ``ended``, ``restarted``, ``expired``.
        execution_s: seconds in the author's code.
        guard_s: seconds outside it, from the first request of an execute on: checks and building responses.
    """

    __slots__ = (
        "calls",
        "execution_s",
        "gaps",
        "guard_s",
        "outcomes",
        "refusals",
        "sequences",
        "violations",
        "warnings",
    )

    def __init__(self) -> None:
        self.outcomes = {"ok": 0, "refused": 0, "answered": 0, "failed": 0, "deadline": 0, "cancelled": 0}
        self.refusals: dict[str, int] = {}
        self.warnings: dict[str, int] = {}
        self.violations: dict[str, int] = {}
        self.gaps: dict[str, int] = {}
        self.calls: dict[str, list[float]] = {}
        self.sequences = {"started": 0, "ended": 0, "restarted": 0, "expired": 0}
        self.execution_s = 0.0
        self.guard_s = 0.0

    def count(self, outcome: str, reason: str = "") -> None:
        """Count one request that was not simply ``ok``."""
        self.outcomes[outcome] += 1
        if outcome == "refused":
            self.refusals[reason] = self.refusals.get(reason, 0) + 1

    def warn(self, reason: str) -> None:
        """Count one output that was passed with a warning."""
        self.warnings[reason] = self.warnings.get(reason, 0) + 1
