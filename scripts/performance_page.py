"""Write the results of docs/explanation/performance.md from what ``make bench`` measured; a test holds the page to it.

make bench ARGS="--output benchmarks/results/reference.json"
PYTHONPATH=. .venv/bin/python scripts/performance_page.py
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report import interval, number, promise, signed
from benchmarks.rows import Row

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "reference.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
PICTURE = ROOT / "docs" / "pictures" / "performance.svg"
PART = re.compile(r"(<!-- generated: (\w+) -->\n).*?(\n<!-- /generated -->)", re.DOTALL)

COMPARED = ("p50, concurrency 1", "throughput, concurrency 16", "p99, concurrency 16")
"""The columns of what is compared, by the end of a row's name."""


def read(file: Path = RESULTS) -> tuple[dict[str, Any], list[Row]]:
    """Return what was measured on, and the rows."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return found["about"], [Row.from_json(row) for row in found["rows"]]


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    return "\n".join(
        f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *([*cells] for cells in rows))
    )


def measured(row: Row) -> tuple[str, str]:
    """Return a row's figure and its interval; nothing of one that was disturbed."""
    return (signed(row, row.figure), interval(row, row.interval)) if not row.problem else ("not measured", "")


def machine(about: dict[str, Any], _rows: Sequence[Row]) -> str:
    """Return where and when it was measured."""
    return (
        f"Measured on {about['date']}: {about['processors']} processors ({about['processor']}), Linux {about['kernel']},"
        f" tritonserver {about['tritonserver']}, Python {about['python']}, numpy {about['numpy']}. One run of"
        f" {about['took_s']} s{', `--quick`' if about['quick'] else ''}; load average {about['load_at_start']} before it"
        f" and {about['load_at_end']} at its end."
    )


def promises(_about: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the table of everything that has a bound."""
    return table(
        ("figure", "promised", "judged by", "measured", "95 % interval", "verdict"),
        (
            (
                f"{row.name} [{row.unit if row.kind == 'added' else 'ratio'}]",
                promise(row.bound).removesuffix(" (interval)"),
                "the whole interval" if row.bound.judged == "interval" else "the figure",
                *measured(row),
                f"{row.verdict}{': ' if row.problem else ''}{row.problem}",
            )
            for row in rows
            if row.bound is not None
        ),
    )


def paired(rows: Sequence[Row], group: str) -> str:
    """Return the table of one group: bare, with the guard or other checks, and what lies between them."""
    return table(
        ("what", "bare", "with checks", "added or ratio", "95 % interval", "bare against itself"),
        (
            (
                f"{row.name} [{row.unit}]",
                number(row.bare) if not row.problem else "",
                number(row.guarded) if not row.problem else "",
                *measured(row),
                interval(row, row.control) if row.control and not row.problem else "",
            )
            for row in rows
            if row.group == group
        ),
    )


def compared(rows: Sequence[Row]) -> dict[str, dict[str, Row]]:
    """Return the rows of the comparison by title, then by column."""
    found: dict[str, dict[str, Row]] = {}
    for row in rows:
        if row.group == "compare":
            title, _, column = row.name.rpartition(": ")
            found.setdefault(title, {})[column] = row
    return found


def comparison(_about: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return one line for each way to serve the function; ratios are to its bare counterpart."""

    def cells(row: Row | None) -> tuple[str, str]:
        if row is None:
            return "", ""
        return number(row.guarded), f"{row.figure:.2f} ({row.interval.low:.2f} to {row.interval.high:.2f})"

    headings = ("what", "p50 at 1, ms", "ratio", "requests/s at 16", "ratio", "p99 at 16, ms", "ratio")
    lines = compared(rows)
    bare = lines["`infer`"]
    base = ("bare", *(cell for column in COMPARED for cell in (number(bare[column].bare), "1")))
    return table(
        headings,
        [
            base,
            *(
                (title, *(cell for column in COMPARED for cell in cells(found.get(column))))
                for title, found in lines.items()
                if found.keys() >= set(COMPARED)
            ),
        ],
    )


PARTS: dict[str, Callable[[dict[str, Any], Sequence[Row]], str]] = {
    "machine": machine,
    "promises": promises,
    "process": lambda _, rows: paired(rows, "in-stub"),
    "compare": comparison,
    "traffic": lambda _, rows: paired(rows, "traffic"),
    "memory": lambda _, rows: paired(rows, "memory"),
    "client": lambda _, rows: paired(rows, "client"),
    "gateway": lambda _, rows: paired(rows, "gateway"),
}


def page(text: str, about: dict[str, Any], rows: Sequence[Row]) -> str:
    """Return the page with every generated part anew; what is written between them stays."""
    return PART.sub(lambda part: f"{part[1]}\n{PARTS[part[2]](about, rows)}\n{part[3]}", text)


def digest(file: Path = RESULTS) -> str:
    """Return what ties a picture to the results that it shows."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def draw(rows: Sequence[Row], picture: Path, mark: str) -> None:
    """Draw what is added in the model's process, and every way to serve the function against the bare model.

    Args:
        rows: of one run.
        picture: an SVG file.
        mark: kept in its description.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "performance", "font.size": 9})
    process = [row for row in rows if "per execute" in row.name and row.unit == "µs" and not row.problem]
    lines = {title: found for title, found in compared(rows).items() if found.keys() >= set(COMPARED)}
    latency, throughput = ([found[column] for found in lines.values()] for column in COMPARED[:2])
    figure, axes = plt.subplot_mosaic(
        [["process", "process"], ["latency", "throughput"]], figsize=(11, 10), layout="constrained"
    )
    for name, title, label, names, chosen, neutral in (
        ("process", "added in the model's process", "µs per request", [row.name for row in process], process, 0.0),
        ("latency", "median latency, one client", "multiple of bare", [*lines], latency, 1.0),
        ("throughput", "requests per second, 16 clients", "multiple of bare", [""] * len(lines), throughput, 1.0),
    ):
        axis = axes[name]
        values = [row.figure for row in chosen]
        spread = [
            [max(row.figure - row.interval.low, 0.0) for row in chosen],
            [max(row.interval.high - row.figure, 0.0) for row in chosen],
        ]
        places = range(len(names))
        axis.barh(places, [value - neutral for value in values], left=neutral, height=0.6, color="#76b900", alpha=0.6)
        axis.errorbar(values, places, xerr=spread, fmt="none", ecolor="black", capsize=2, linewidth=1)
        axis.axvline(neutral, color="black", linewidth=1)
        axis.set(title=title, xlabel=label)
        axis.set_yticks(places, [each.replace("`", "") for each in names])
        axis.invert_yaxis()
    axes["latency"].set_xscale("log")
    axes["latency"].xaxis.set_major_formatter("{x:g}")
    figure.savefig(picture, metadata={"Date": None, "Description": mark})
    plt.close(figure)


def main() -> int:
    """Write the page and its picture."""
    about, rows = read()
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), about, rows), encoding="utf-8")
    draw(rows, PICTURE, digest())
    return 0


if __name__ == "__main__":
    sys.exit(main())
