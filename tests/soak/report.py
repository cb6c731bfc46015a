"""What a soak saw: figures, a table, and a page that needs nothing else."""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.soak.picture import draw
from tests.soak.samples import Sample

PERCENTILES = (50, 90, 99, 99.9)
BOUNDS = {"MiB": 16.0, "descriptors": 20.0, "threads": 50.0, "regions": 3.0}
"""What grew by more between the second and the last quarter, and by a fifth, is a problem, but for the offenders."""

LEFT = {"MiB": 1.25, "descriptors": 1.5, "threads": 36.0, "regions": 0.0}
"""What each death of a model during a request leaves in tritonserver until it ends, which is Triton's own."""


@dataclass(frozen=True, kw_only=True)
class Soak:
    """Everything that was seen.

    Args:
        minutes: how long.
        samples: of memory and descriptors.
        latencies_ms: of the good requests to the neighbours, in order of their end.
        faults: how often each was injected.
        answered: good answers by model and protocol.
        lost: good requests of the neighbours without the right answer.
        problems: of the hostile traffic, see the fuzzer.
        hostile: outcomes of the hostile traffic.
        unhealed: faults after which the model did not serve again.
        final: state of each model at the end.
        offenders: the models whose requests ask for the faults; they may hold what those made them take.
    """

    minutes: float
    samples: Sequence[Sample]
    latencies_ms: Sequence[float]
    faults: dict[str, int]
    answered: dict[str, int]
    lost: Sequence[str]
    problems: Sequence[str]
    hostile: dict[str, int]
    unhealed: Sequence[str]
    final: dict[str, str]
    offenders: frozenset[str] = frozenset()

    def grown(self) -> list[str]:
        """Processes and regions that grew, but for the offenders and what their deaths leave in tritonserver."""
        found = []
        early, late = self._quarters()
        deaths = late[-1].restarts - early[0].restarts
        for name, before, after, unit in self.growth():
            left = deaths * LEFT[unit] if name == "tritonserver" else 0.0
            if name not in self.offenders and after - before - left > max(BOUNDS[unit], before / 5):
                found.append(f"{name}: {before:.1f} {unit} in the second quarter, {after:.1f} in the last")
        return found

    def _quarters(self) -> tuple[Sequence[Sample], Sequence[Sample]]:
        quarter = max(len(self.samples) // 4, 1)
        return self.samples[quarter : 2 * quarter] or self.samples, self.samples[-quarter:]

    def growth(self) -> list[tuple[str, float, float, str]]:
        """Name, median in the second quarter, median in the last quarter, unit."""
        early, late = self._quarters()
        rows = []
        for name in sorted({name for sample in self.samples for name in sample.uses}):
            for unit, attribute in (("MiB", "memory_mib"), ("descriptors", "descriptors"), ("threads", "threads")):
                halves = [
                    [getattr(sample.uses[name], attribute) for sample in part if name in sample.uses]
                    for part in (early, late)
                ]
                if all(halves):
                    rows.append((name, statistics.median(halves[0]), statistics.median(halves[1]), unit))
        for unit, attribute in (("regions", "regions"), ("MiB", "regions_mib")):
            before, after = (statistics.median(getattr(sample, attribute) for sample in part) for part in (early, late))
            rows.append(("/dev/shm", before, after, unit))
        return rows

    def verdict(self) -> list[str]:
        """Everything that may not be."""
        dead = [f"{model} ended as {state}" for model, state in self.final.items() if state != "ready"]
        return [*self.lost[:20], *self.problems[:20], *self.unhealed, *dead, *self.grown()]

    def lines(self) -> list[tuple[str, str]]:
        """The table."""
        rows = [("length", f"{self.minutes:g} minutes"), ("faults", _counts(self.faults))]
        rows += [("restarts of models", str(self.samples[-1].restarts)), ("good answers", _counts(self.answered))]
        rows += [("lost", str(len(self.lost))), ("hostile requests", _counts(self.hostile))]
        rows += [(f"latency {name}", f"{value:.2f} ms") for name, value in self.latency().items()]
        uses: dict[str, list[str]] = {}
        for name, before, after, unit in self.growth():
            uses.setdefault(name, []).append(f"{before:.1f} -> {after:.1f} {unit}")
        return rows + [(name, ", ".join(texts)) for name, texts in uses.items()]

    def latency(self) -> dict[str, float]:
        """Percentiles of the neighbours' good answers, in milliseconds."""
        if len(self.latencies_ms) < 2:
            return {}
        cuts = statistics.quantiles(self.latencies_ms, n=1000)
        return {f"p{p:g}": cuts[int(p * 10) - 1] for p in PERCENTILES} | {"longest": max(self.latencies_ms)}

    def as_json(self) -> dict[str, Any]:
        """Everything but the single samples and latencies, for programs."""
        return {
            "schema": 2,
            "minutes": self.minutes,
            "problems": self.verdict(),
            "faults": self.faults,
            "restarts": self.samples[-1].restarts,
            "answered": self.answered,
            "lost": len(self.lost),
            "hostile": self.hostile,
            "unhealed": self.unhealed,
            "final": self.final,
            "latency_ms": {name: round(value, 2) for name, value in self.latency().items()},
            "growth": [
                {"name": name, "unit": unit, "before": round(before, 1), "after": round(after, 1)}
                for name, before, after, unit in self.growth()
            ],
        }


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def write(soak: Soak, folder: Path) -> list[Path]:
    """Write ``soak.png`` and ``soak.html``; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "soak.png", folder / "soak.html"
    draw(soak.samples, soak.latencies_ms, soak.offenders, picture)
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in soak.lines())
    verdict = "".join(f"<li>{html.escape(line)}</li>" for line in soak.verdict()) or "<li>no problems</li>"
    image = base64.b64encode(picture.read_bytes()).decode()
    page.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Soak</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:70em}th{text-align:left;padding-right:2em;"
        "vertical-align:top;white-space:nowrap}img{max-width:100%}</style>"
        f"<h1>Soak of {soak.minutes:g} minutes</h1><ul>{verdict}</ul><table>{rows}</table>"
        f'<img alt="Memory, descriptors and latency over time" src="data:image/png;base64,{image}"></html>\n',
        encoding="utf-8",
    )
    return [picture, page]
