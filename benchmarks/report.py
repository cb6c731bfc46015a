"""The rows as a table or as JSON, and what they were measured on."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from benchmarks.rows import Bound, Row
from benchmarks.statistics import Interval
from safe_triton import __version__

if TYPE_CHECKING:
    from rich.console import Console

    from safe_triton.server import TritonInstallation

TITLES = {
    "in-stub": "in the model's process (minimum of undisturbed blocks; interval of paired blocks)",
    "traffic": "under traffic (median of the lives' ratios)",
    "compare": "every way to serve the same function, in turns in one run (median of the lives' ratios)",
    "client": "safe_triton.client and tritonclient (median of the rounds' ratios)",
    "gateway": "through the gateway (median of the rounds' differences and ratios)",
    "memory": "one instance (memory: median of the loads; times: the shortest)",
}
COLOURS = {"ok": "green", "beyond": "bold red", "noisy": "bold yellow", "reported": "dim"}


def about(installation: TritonInstallation) -> dict[str, Any]:
    """Describe what is measured and on what, without naming the host."""
    return {
        "safe_triton": __version__,
        "tritonserver": installation.release,
        "python": installation.python_version,
        "numpy": installation.numpy_version,
        "processor": _processor(),
        "processors": len(os.sched_getaffinity(0)),
        "kernel": platform.release().split("-")[0],
        "date": time.strftime("%Y-%m-%d"),
        "load_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def as_json(rows: Sequence[Row], facts: dict[str, Any]) -> dict[str, Any]:
    """Return everything as plain values."""
    return {"ok": not any(row.is_failure for row in rows), "about": facts, "rows": [row.as_json() for row in rows]}


def print_table(console: Console, rows: Sequence[Row]) -> None:
    """Print one table for each group."""
    for group, title in TITLES.items():
        chosen = [row for row in rows if row.group == group]
        if chosen:
            console.print(_table(title, chosen))


def _table(title: str, rows: Sequence[Row]) -> Table:
    table = Table(title=title, title_justify="left", expand=True)
    table.add_column("what", ratio=3)
    for heading in ("bare", "guarded", "added or ratio", "95 % interval", "bare against itself", "promised"):
        table.add_column(heading, justify="right")
    table.add_column("verdict")
    table.add_column("from", ratio=2)
    for row in rows:
        table.add_row(
            Text(f"{row.name} [{row.unit}]"),
            number(row.bare),
            number(row.guarded),
            signed(row, row.figure),
            interval(row, row.interval),
            interval(row, row.control) if row.control else "",
            promise(row.bound) if row.bound else "",
            Text(row.verdict, style=COLOURS[row.verdict]),
            row.problem or row.note,
        )
    return table


def number(value: float) -> str:
    """Return a value with about four digits."""
    digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}"


def signed(row: Row, value: float) -> str:
    """Return a difference with its sign, a ratio without."""
    if row.kind == "ratio":
        return f"{value:.3f}"
    return f"{'+' if value >= 0 else ''}{number(value)}"


def interval(row: Row, ends: Interval) -> str:
    """Return both ends."""
    return f"{signed(row, ends.low)} to {signed(row, ends.high)}"


def promise(bound: Bound) -> str:
    """Return the bound as it is judged."""
    sign = "≤" if bound.side == "at most" else "≥"
    return f"{sign} {bound.value:g}{' (interval)' if bound.judged == 'interval' else ''}"
