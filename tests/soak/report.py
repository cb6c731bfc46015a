"""What a soak saw: figures, a table, a plot and a page that needs nothing else."""

from __future__ import annotations

import base64
import html
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.soak.samples import Sample

PERCENTILES = (50, 90, 99, 99.9)
GROWTH_MIB = 16.0
"""A process whose memory grew by more between the second and the last quarter, and by a fifth, is a problem."""


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

    def grown(self) -> list[str]:
        """Processes, descriptors and regions that grew."""
        found = []
        for name, before, after, unit in self.growth():
            bound = GROWTH_MIB if unit == "MiB" else 20
            if after - before > max(bound, before / 5):
                found.append(f"{name}: {before:.1f} {unit} in the second quarter, {after:.1f} in the last")
        return found

    def growth(self) -> list[tuple[str, float, float, str]]:
        """Name, median in the second quarter, median in the last quarter, unit."""
        quarter = max(len(self.samples) // 4, 1)
        early, late = self.samples[quarter : 2 * quarter] or self.samples, self.samples[-quarter:]
        rows = []
        for name in sorted({name for sample in self.samples for name in sample.uses}):
            for unit, attribute in (("MiB", "memory_mib"), ("descriptors", "descriptors")):
                halves = [
                    [getattr(sample.uses[name], attribute) for sample in part if name in sample.uses]
                    for part in (early, late)
                ]
                if all(halves):
                    rows.append((name, statistics.median(halves[0]), statistics.median(halves[1]), unit))
        regions = [statistics.median(sample.regions for sample in part) for part in (early, late)]
        return [*rows, ("/dev/shm", regions[0], regions[1], "regions")]

    def verdict(self) -> list[str]:
        """Everything that may not be."""
        dead = [f"{model} ended as {state}" for model, state in self.final.items() if state != "ready"]
        return [*self.lost[:20], *self.problems[:20], *self.unhealed, *dead, *self.grown()]

    def lines(self) -> list[tuple[str, str]]:
        """The table."""
        rows = [("length", f"{self.minutes:g} minutes"), ("faults", _counts(self.faults))]
        rows += [("restarts", str(self.samples[-1].restarts)), ("good answers", _counts(self.answered))]
        rows += [("lost", str(len(self.lost))), ("hostile requests", _counts(self.hostile))]
        if len(self.latencies_ms) > 1:
            cuts = statistics.quantiles(self.latencies_ms, n=1000)
            rows += [(f"latency p{p:g}", f"{cuts[int(p * 10) - 1]:.2f} ms") for p in PERCENTILES]
            rows.append(("latency, longest", f"{max(self.latencies_ms):.0f} ms"))
        rows += [(f"{name}", f"{before:.1f} -> {after:.1f} {unit}") for name, before, after, unit in self.growth()]
        return rows


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(counts.items())) or "none"


def write(soak: Soak, folder: Path) -> list[Path]:
    """Write ``soak.png`` and ``soak.html``; return both."""
    folder.mkdir(parents=True, exist_ok=True)
    picture, page = folder / "soak.png", folder / "soak.html"
    draw(soak, picture)
    rows = "".join(f"<tr><th>{html.escape(name)}</th><td>{html.escape(text)}</td></tr>" for name, text in soak.lines())
    verdict = "".join(f"<li>{html.escape(line)}</li>" for line in soak.verdict()) or "<li>no findings</li>"
    image = base64.b64encode(picture.read_bytes()).decode()
    page.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Soak</title>"
        "<style>body{font:15px sans-serif;margin:2em;max-width:70em}th{text-align:left;padding-right:2em;"
        "vertical-align:top}img{max-width:100%}</style>"
        f"<h1>Soak of {soak.minutes:g} minutes</h1><ul>{verdict}</ul><table>{rows}</table>"
        f'<img alt="Memory, descriptors and latency over time" src="data:image/png;base64,{image}"></html>\n',
        encoding="utf-8",
    )
    return [picture, page]


def draw(soak: Soak, file: Path) -> None:
    """Draw memory, descriptors and restarts over time, and the latencies."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(14, 8), constrained_layout=True)
    times = [sample.at_s / 60 for sample in soak.samples]
    for name in sorted({name for sample in soak.samples for name in sample.uses}):
        for axis, attribute in ((axes[0][0], "memory_mib"), (axes[0][1], "descriptors")):
            points = [
                (at, getattr(sample.uses[name], attribute))
                for at, sample in zip(times, soak.samples, strict=True)
                if name in sample.uses
            ]
            axis.plot([at for at, _ in points], [value for _, value in points], label=name, linewidth=1)
    axes[0][0].set(title="private memory", xlabel="minutes", ylabel="MiB", ylim=(0, None))
    axes[0][1].set(title="open descriptors", xlabel="minutes", ylim=(0, None))
    axes[0][0].legend(fontsize=7, ncols=3)
    axes[1][0].plot(times, [sample.restarts for sample in soak.samples], label="restarts so far")
    axes[1][0].plot(times, [sample.regions for sample in soak.samples], label="regions in /dev/shm")
    axes[1][0].set(title="healing", xlabel="minutes", ylim=(0, None))
    axes[1][0].legend()
    axes[1][1].hist(soak.latencies_ms, bins=200, log=True)
    axes[1][1].set(title="latency of the neighbours' requests", xlabel="milliseconds", ylabel="requests")
    figure.savefig(file, dpi=110)
    plt.close(figure)
