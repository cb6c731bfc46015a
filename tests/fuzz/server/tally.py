"""What became of all requests of a campaign."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

SHOWN = 40


def _plain(value: Any) -> Any:
    return [asdict(end) if isinstance(end, End) else end for end in value] if isinstance(value, list) else value


@dataclass
class End:
    """One end of tritonserver and what was on its way.

    Attributes:
        pid: that ended.
        requests: what was on its way: its number, and what was wrong with it.
        culprits: those of them that end tritonserver again when they are sent alone.
    """

    pid: int
    requests: dict[int, str]
    culprits: list[int] = field(default_factory=list)


@dataclass
class Tally:
    """What became of all requests.

    Attributes:
        sent: requests by kind.
        outcomes: by protocol and outcome.
        errors: texts of the answers that say the fault is the server's, without what differs from one to the next.
        good: good requests by what became of them: ``right``, ``right later``, ``wrong``.
        ends: of tritonserver.
        problems: everything that may not happen, each with the number of its request.
        slowest_s: the longest wait for an answer.
    """

    sent: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    good: Counter[str] = field(default_factory=Counter)
    ends: list[End] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    slowest_s: float = 0.0

    def add(self, other: Tally) -> None:
        """Add what another thread saw."""
        for name in ("sent", "outcomes", "errors", "good"):
            getattr(self, name).update(getattr(other, name))
        self.problems += other.problems
        self.slowest_s = max(self.slowest_s, other.slowest_s)

    def as_json(self, **about: Any) -> dict[str, Any]:
        """Everything, for programs."""
        return {"schema": 2, **about, **{name: _plain(value) for name, value in vars(self).items()}}

    def lines(self, models: Mapping[str, object]) -> list[str]:
        """Everything, for people."""
        lines = []
        tables = {"sent": self.sent, "outcomes": self.outcomes, "errors": self.errors, "good requests": self.good}
        for title, counts in tables.items():
            lines += [title, *(f"  {number:>8} {name}" for name, number in counts.most_common())]
        lines += ["models", *(f"  {name}: {row}" for name, row in models.items())]
        lines += [f"tritonserver ended {len(self.ends)} times, and was started again"]
        for end in self.ends:
            lines.append(f"  {end.pid}, while these were on their way:")
            for number, what in end.requests.items():
                lines.append(f"    {number}: {what}{', which ends it again' if number in end.culprits else ''}")
        return [*lines, f"slowest answer {self.slowest_s:.1f} s; {len(self.problems)} problems", *self.problems[:SHOWN]]
