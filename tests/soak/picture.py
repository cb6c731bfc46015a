"""The plot of a soak: memory, descriptors and threads of every process, restarts, shared memory, and latencies."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tests.soak.samples import Sample

SLICES = 120
"""Points of the latencies' lines."""


def draw(samples: Sequence[Sample], latencies_ms: Sequence[float], offenders: Collection[str], file: Path) -> None:
    """Draw everything over the minutes of the run."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from PIL import Image

    names = sorted({name for sample in samples for name in sample.uses})
    others = [name for name in names if name not in offenders]
    figure, axes = plt.subplots(3, 2, figsize=(13, 11), constrained_layout=True)
    _lines(axes[0][0], samples, others, "memory_mib", "private memory, MiB")
    _lines(axes[0][1], samples, [name for name in names if name in offenders], "memory_mib", "the offenders, MiB")
    _lines(axes[1][0], samples, others, "descriptors", "open descriptors")
    _lines(axes[1][1], samples, others, "threads", "threads")
    times = [sample.at_s / 60 for sample in samples]
    axes[2][0].plot(times, [sample.restarts for sample in samples], label="restarts of models so far")
    axes[2][0].plot(times, [sample.regions for sample in samples], label="regions in /dev/shm")
    axes[2][0].plot(times, [sample.regions_mib for sample in samples], label="what they hold, MiB")
    axes[2][0].set(title="healing", xlabel="minutes", ylim=(0, None))
    axes[2][0].legend(fontsize=8)
    _latencies(axes[2][1], latencies_ms, times[-1])
    figure.savefig(file, dpi=80)
    plt.close(figure)
    with Image.open(file) as picture:
        small = picture.convert("RGB").quantize(64)
    small.save(file, optimize=True)


def _lines(axis: Any, samples: Sequence[Sample], names: Sequence[str], attribute: str, title: str) -> None:
    """One line for each process."""
    for number, name in enumerate(names):
        points = [
            (sample.at_s / 60, getattr(sample.uses[name], attribute)) for sample in samples if name in sample.uses
        ]
        style = "-" if number < 10 else "--"
        axis.plot([at for at, _ in points], [value for _, value in points], style, label=name, linewidth=1.2)
    axis.set(title=title, xlabel="minutes", ylim=(0, None))
    axis.legend(fontsize=7, ncols=2)


def _latencies(axis: Any, latencies_ms: Sequence[float], minutes: float) -> None:
    """Percentiles of each slice of the neighbours' answers, in the order of their end."""
    size = max(len(latencies_ms) // SLICES, 1)
    slices = [sorted(latencies_ms[at : at + size]) for at in range(0, len(latencies_ms), size)]
    times = [minutes * number / len(slices) for number in range(len(slices))]
    axis.plot(times, [statistics.median(part) for part in slices], label="median")
    axis.plot(times, [part[int(len(part) * 0.99)] for part in slices], label="99 %")
    axis.plot(times, [part[-1] for part in slices], label="longest", linewidth=0.8)
    axis.set(title="the neighbours' answers, ms", xlabel="minutes", yscale="log")
    axis.legend(fontsize=8)
