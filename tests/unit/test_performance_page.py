"""The page about performance shows the results that lie beside the benchmarks, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from scripts.performance_page import PAGE, PART, PARTS, PICTURE, digest, draw, page, read

ABOUT, ROWS = read()
TEXT = PAGE.read_text(encoding="utf-8")


def test_page_is_current() -> None:
    """``scripts/performance_page.py`` has been run since ``make bench`` wrote its results."""
    assert page(TEXT, ABOUT, ROWS) == TEXT


def test_picture_is_current() -> None:
    """The picture was drawn from these very results."""
    assert digest() in PICTURE.read_text(encoding="utf-8")


def test_every_part_is_on_the_page() -> None:
    """No table is missing, and none comes twice."""
    assert sorted(part[2] for part in PART.finditer(TEXT)) == sorted(PARTS)


def test_every_row_is_shown() -> None:
    """What was measured is on the page, whatever it turned out to be."""
    for row in ROWS:
        shown = row.name.rpartition(": ")[0] if row.group == "compare" else row.name
        assert shown in TEXT


def test_what_is_written_between_stays() -> None:
    """Other results change the tables alone."""
    other = page(TEXT, {**ABOUT, "date": "another day"}, [replace(row, bare=row.bare * 2) for row in ROWS])
    assert other != TEXT
    assert PART.sub("", other) == PART.sub("", TEXT)


def test_what_was_disturbed_is_no_figure() -> None:
    """A row without a measurement shows why, and no number."""
    row = replace(next(row for row in ROWS if row.bound), figure=77.7, problem="only 3 undisturbed rounds")
    shown = PARTS["promises"](ABOUT, [row])
    assert "only 3 undisturbed rounds" in shown
    assert "77.7" not in shown


def test_drawing(tmp_path: Path) -> None:
    """The picture says which results it shows, and names every way to serve."""
    draw(ROWS, tmp_path / "drawn.svg", "the mark")
    drawn = (tmp_path / "drawn.svg").read_text(encoding="utf-8")
    assert "the mark" in drawn
    assert "PyTriton" in drawn
