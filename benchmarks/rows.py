"""One line of the results, and whether it keeps what was promised."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from benchmarks.statistics import Interval, median, median_interval, ratios

Verdict = Literal["ok", "beyond", "noisy", "reported"]


@dataclass(frozen=True)
class Bound:
    """What a figure must not pass.

    Args:
        value: the last value that is accepted.
        side: ``at most`` or ``at least``.
        judged: ``figure`` fails as soon as the figure lies beyond; ``interval`` only when the whole interval does.
    """

    value: float
    side: Literal["at most", "at least"] = "at most"
    judged: Literal["figure", "interval"] = "figure"

    def is_beyond(self, figure: float) -> bool:
        """Tell whether a value lies beyond the bound; exactly on it is accepted."""
        return figure > self.value if self.side == "at most" else figure < self.value


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison of the guarded with the bare model.

    Args:
        group: ``in-stub``, ``traffic``, ``compare``, ``memory``, ``client`` or ``gateway``.
        name: what was measured.
        unit: of ``bare`` and ``guarded``.
        bare: the bare model's value.
        guarded: the guarded model's value.
        kind: whether ``figure`` is a difference or a ratio.
        figure: guarded minus bare, or guarded divided by bare.
        interval: 95 % interval of the median difference or ratio.
        control: the same interval of the bare model against itself: what this machine's noise alone makes.
        bound: what was promised; None where the figure is reported only.
        problem: why there is nothing to judge by; such a row is never ``ok``.
        note: how many measurements the figure rests on.
    """

    group: str
    name: str
    unit: str
    bare: float
    guarded: float
    kind: Literal["added", "ratio"]
    figure: float
    interval: Interval
    control: Interval | None = None
    bound: Bound | None = None
    problem: str = ""
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """``beyond`` and ``noisy`` fail the gate."""
        if self.problem:
            return "noisy"
        if self.bound is None:
            return "reported"
        judged = [self.figure] if self.bound.judged == "figure" else list(self.interval)
        return "beyond" if all(map(self.bound.is_beyond, judged)) else "ok"

    @property
    def is_failure(self) -> bool:
        """Whether this row fails the gate."""
        return self.verdict in {"beyond", "noisy"}

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            **asdict(self),
            "interval": list(self.interval),
            "control": list(self.control) if self.control else None,
            "verdict": self.verdict,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Row:
        """Return the row that :meth:`as_json` gave the values of."""
        fields = {name: value for name, value in found.items() if name != "verdict"}
        return cls(
            **{
                **fields,
                "interval": Interval(*fields["interval"]),
                "control": Interval(*fields["control"]) if fields["control"] else None,
                "bound": Bound(**fields["bound"]) if fields["bound"] else None,
            }
        )


def ratio_row(
    *,
    group: str,
    name: str,
    unit: str,
    bare: Sequence[float],
    guarded: Sequence[float],
    note: str,
    bound: Bound | None = None,
    again: Sequence[float] | None = None,
) -> Row:
    """Return the row of two series taken in turns: the median of their ratios.

    Args:
        group: as of :class:`Row`, and so the next two.
        name: what was measured.
        unit: of the values.
        bare: values of the bare model, one each turn.
        guarded: of the guarded one.
        note: how many measurements the figure rests on.
        bound: what was promised.
        again: of the bare model's second instance, for the noise.
    """
    found = ratios(bare, guarded)
    return Row(
        group=group,
        name=name,
        unit=unit,
        bare=median(bare),
        guarded=median(guarded),
        kind="ratio",
        figure=median(found),
        interval=median_interval(found),
        control=None if again is None else median_interval(ratios(bare, again)),
        bound=bound,
        note=note,
    )
