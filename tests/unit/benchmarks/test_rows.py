"""What fails the gate, and how a row is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest

from benchmarks.report import as_json, interval, number, promise, signed
from benchmarks.rows import Bound, Row
from benchmarks.statistics import Interval


def row(**changes: Any) -> Row:
    """A row that is fine, but for the changes."""
    fields: dict[str, Any] = {
        "group": "in-stub",
        "name": "infer",
        "unit": "µs",
        "bare": 5.0,
        "guarded": 6.5,
        "kind": "added",
        "figure": 1.5,
        "interval": Interval(1.4, 1.6),
        "bound": Bound(2.5),
    }
    return Row(**{**fields, **changes})


class TestVerdict:
    @pytest.mark.parametrize(
        ("figure", "bound", "verdict"),
        [
            (2.5, Bound(2.5), "ok"),
            (2.501, Bound(2.5), "beyond"),
            (0.97, Bound(0.97, "at least"), "ok"),
            (0.969, Bound(0.97, "at least"), "beyond"),
            (99.0, None, "reported"),
        ],
    )
    def test_of_a_figure(self, figure: float, bound: Bound | None, verdict: str) -> None:
        """Exactly on the bound is kept, beyond it is not; without a bound there is nothing to judge."""
        assert row(figure=figure, bound=bound).verdict == verdict

    @pytest.mark.parametrize(
        ("ends", "verdict"), [((1.01, 1.2), "ok"), ((1.03, 1.2), "ok"), ((1.04, 1.2), "beyond"), ((0.9, 1.0), "ok")]
    )
    def test_of_an_interval_from_above(self, ends: tuple[float, float], verdict: str) -> None:
        """A noisy ratio fails only when its whole interval lies beyond, wherever the figure is."""
        judged = row(kind="ratio", figure=9.9, interval=Interval(*ends), bound=Bound(1.03, "at most", "interval"))
        assert judged.verdict == verdict

    @pytest.mark.parametrize(("ends", "verdict"), [((0.8, 0.96), "beyond"), ((0.8, 0.97), "ok"), ((0.98, 1.1), "ok")])
    def test_of_an_interval_from_below(self, ends: tuple[float, float], verdict: str) -> None:
        """The same for a bound that has to be reached."""
        judged = row(kind="ratio", figure=0.1, interval=Interval(*ends), bound=Bound(0.97, "at least", "interval"))
        assert judged.verdict == verdict

    def test_without_a_measurement(self) -> None:
        """What could not be measured is never ok, bound or not."""
        assert row(problem="only 3 undisturbed rounds").verdict == "noisy"
        assert row(problem="only 3 undisturbed rounds").is_failure
        assert row(problem="x", bound=None).is_failure

    def test_what_fails_the_gate(self) -> None:
        """Only ``beyond`` and ``noisy`` do."""
        assert [row().is_failure, row(bound=None).is_failure, row(figure=3.0).is_failure] == [False, False, True]


class TestShown:
    def test_json(self) -> None:
        """The JSON holds every row with its verdict, and says whether the gate is passed."""
        found = json.loads(
            json.dumps(as_json([row(), row(figure=3.0, control=Interval(-0.1, 0.1))], {"python": "3.11"}))
        )
        assert found["ok"] is False
        assert [one["verdict"] for one in found["rows"]] == ["ok", "beyond"]
        assert found["rows"][1]["control"] == [-0.1, 0.1]
        assert found["rows"][0]["bound"] == {"value": 2.5, "side": "at most", "judged": "figure"}

    @pytest.mark.parametrize("one", [row(), row(bound=None, control=Interval(-0.1, 0.1), problem="too few")])
    def test_json_holds_the_whole_row(self, one: Row) -> None:
        """What is read again is what was written: the page is made from it."""
        assert Row.from_json(json.loads(json.dumps(one.as_json()))) == one

    @pytest.mark.parametrize(
        ("value", "text"), [(1.23456, "1.235"), (12.3456, "12.35"), (123.456, "123.5"), (12345.6, "12346")]
    )
    def test_numbers(self, value: float, text: str) -> None:
        """About four digits, whatever the size."""
        assert number(value) == text

    def test_differences_have_a_sign_and_ratios_have_none(self) -> None:
        """An added microsecond is ``+1.000``, a saved one ``-1.000``, a ratio neither."""
        assert (signed(row(), 1.0), signed(row(), -1.0), signed(row(kind="ratio"), 1.0)) == (
            "+1.000",
            "-1.000",
            "1.000",
        )
        assert interval(row(), Interval(-1.0, 1.0)) == "-1.000 to +1.000"

    def test_promises(self) -> None:
        """The table says what is judged."""
        assert promise(Bound(2.5)) == "≤ 2.5"
        assert promise(Bound(0.97, "at least", "interval")) == "≥ 0.97 (interval)"
