"""Figures out of noisy series: no distribution is assumed anywhere, and nothing here is random."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

CONFIDENCE = 0.95
REFERENCE_QUANTILE = 0.05
"""Which calibration loop counts as undisturbed. Not the very fastest: one lucky loop would disqualify every other."""


class Interval(NamedTuple):
    """Both ends belong to it."""

    low: float
    high: float


class Block(NamedTuple):
    """One timed block of a replay.

    Args:
        gap: index of the calibration loop before it; the next one stands after it.
        nanoseconds: of one execute.
        involuntary: context switches that the kernel forced on it.
        voluntary: context switches of its own: it waited.
    """

    gap: int
    nanoseconds: float
    involuntary: int
    voluntary: int


def quantile(values: Iterable[float], share: float) -> float:
    """Return the value below which ``share`` of the values lie, interpolated between neighbours.

    Raises:
        ValueError: no values, or a share outside 0 to 1.
    """
    ordered = sorted(values)
    if not ordered or not 0.0 <= share <= 1.0:
        raise ValueError("quantile needs values and a share within 0 to 1")
    place = share * (len(ordered) - 1)
    lower = math.floor(place)
    upper = min(lower + 1, len(ordered) - 1)
    return ordered[lower] + (ordered[upper] - ordered[lower]) * (place - lower)


def median(values: Iterable[float]) -> float:
    """Return the middle value."""
    return quantile(values, 0.5)


def median_interval(values: Iterable[float], confidence: float = CONFIDENCE) -> Interval:
    """Return an interval that holds the median of what the values are drawn from.

    Order statistics: how many of the values lie below the true median is a toss of as many coins. With fewer than six
    values no two of them enclose it with 95 %; the interval is then all there is, the smallest to the greatest.

    Args:
        values: independent measurements, in any order.
        confidence: how surely the interval holds the median.

    Raises:
        ValueError: no values.
    """
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("an interval needs values")
    tail, weight, skipped = 0.0, 0.5**count if count < 1000 else 0.0, 0
    if count >= 1000:  # 0.5**count leaves the range of floats; the normal curve is exact enough long before
        skipped = max(0, math.floor((count - 1.96 * math.sqrt(count)) / 2))
    else:
        while tail + weight <= (1 - confidence) / 2:
            tail += weight
            skipped += 1
            weight = math.comb(count, skipped) * 0.5**count
    skipped = max(0, skipped - 1)
    return Interval(ordered[skipped], ordered[count - 1 - skipped])


def clean_blocks(blocks: Sequence[Block], calibration_ns: Sequence[int], tolerance: float = 0.05) -> dict[int, float]:
    """Keep the blocks during which the processor did nothing else.

    A block counts if the kernel never took the processor away and the loops of known work right before and right after
    it were as fast as that loop can be.

    Args:
        blocks: in the order they ran.
        calibration_ns: duration of every calibration loop; one more than there are blocks of all variants.
        tolerance: how much slower than undisturbed a loop may be, as a share.

    Returns:
        Nanoseconds of one execute, by the block's place in ``blocks``.
    """
    limit_ns = quantile(calibration_ns, REFERENCE_QUANTILE) * (1 + tolerance)
    return {
        place: block.nanoseconds
        for place, block in enumerate(blocks)
        if not block.involuntary and max(calibration_ns[block.gap], calibration_ns[block.gap + 1]) <= limit_ns
    }


def paired_differences(base: Mapping[int, float], other: Mapping[int, float]) -> list[float]:
    """Return ``other - base`` for every round in which both are clean: what drifts slowly cancels."""
    return [other[place] - base[place] for place in sorted(base.keys() & other.keys())]


def ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """Return ``other / base`` round by round; a round without a base value says nothing and is left out."""
    return [one / reference for reference, one in zip(base, other, strict=True) if reference > 0]
