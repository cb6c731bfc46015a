"""The figures of the benchmarks mean what their names say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.statistics import (
    Block,
    Interval,
    clean_blocks,
    median,
    median_interval,
    paired_differences,
    quantile,
    ratios,
)

FLOATS = st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60)


class TestQuantile:
    @pytest.mark.parametrize(
        ("share", "expected"), [(0.0, 1.0), (0.25, 1.75), (0.5, 2.5), (1.0, 4.0)], ids=["least", "low", "mid", "most"]
    )
    def test_lies_between_neighbours(self, share: float, expected: float) -> None:
        """Order does not matter, and a share between two values gives a value between them."""
        assert quantile([3.0, 1.0, 4.0, 2.0], share) == expected

    @pytest.mark.parametrize(("values", "share"), [([], 0.5), ([1.0], -0.1), ([1.0], 1.1)])
    def test_refuses_what_has_no_answer(self, values: list[float], share: float) -> None:
        """No values, or a share that is none."""
        with pytest.raises(ValueError, match="quantile"):
            quantile(values, share)

    @given(FLOATS)
    def test_median_halves_the_values(self, values: list[float]) -> None:
        """At most half of the values lie on either side."""
        middle = median(values)
        assert sum(value < middle for value in values) <= len(values) / 2
        assert sum(value > middle for value in values) <= len(values) / 2


class TestMedianInterval:
    @pytest.mark.parametrize(
        ("count", "first"),
        # The ranks that tables of the sign test give for 95 %, counted from one.
        [(1, 1), (5, 1), (6, 1), (8, 1), (9, 2), (12, 3), (15, 4), (20, 6), (25, 8), (40, 14)],
    )
    def test_ranks_of_the_sign_test(self, count: int, first: int) -> None:
        """The ends are the values with the tabulated ranks; with fewer than six values, the outermost."""
        found = median_interval([float(rank) for rank in range(1, count + 1)])
        assert found == Interval(first, count + 1 - first)

    def test_large_series_use_the_normal_curve(self) -> None:
        """Where the exact tail leaves the range of floats, the ranks go on as they were."""
        exact = median_interval([float(value) for value in range(999)])
        curve = median_interval([float(value) for value in range(1000)])
        assert abs(exact.low - curve.low) <= 2
        assert abs(exact.high - curve.high) <= 2

    def test_refuses_nothing_to_go_by(self) -> None:
        """An interval of no values is an error, not zero."""
        with pytest.raises(ValueError, match="interval"):
            median_interval([])

    @given(FLOATS)
    def test_holds_the_sample_median(self, values: list[float]) -> None:
        """The interval is never beside the median it is for."""
        low, high = median_interval(values)
        assert low <= median(values) <= high

    def test_covers_the_true_median(self) -> None:
        """In 1000 skewed samples the true median lies within at least 95 % of the intervals, less chance."""
        chance = random.Random(20)
        hits = 0
        for _ in range(1000):
            low, high = median_interval([chance.expovariate(1.0) for _ in range(20)])
            hits += low <= 0.6931 <= high
        assert hits >= 935


class TestCleanBlocks:
    CALIBRATION = (100, 100, 104, 120, 100, 100, 106, 100)

    def kept(self, *blocks: Block) -> dict[int, float]:
        return clean_blocks(blocks, self.CALIBRATION)

    def test_undisturbed(self) -> None:
        """A block between two loops as fast as they can be is kept, with its place."""
        assert self.kept(Block(0, 7.0, 0, 0)) == {0: 7.0}

    def test_tolerance_on_both_sides(self) -> None:
        """Four per cent slower than undisturbed is accepted, six per cent is not, on whichever side."""
        assert self.kept(Block(1, 7.0, 0, 0)) == {0: 7.0}
        assert self.kept(Block(5, 7.0, 0, 0)) == {}
        assert self.kept(Block(6, 7.0, 0, 0)) == {}

    def test_slow_loop(self) -> None:
        """A loop that was disturbed disqualifies the blocks before and after it, and no other."""
        assert self.kept(Block(2, 1.0, 0, 0), Block(3, 2.0, 0, 0), Block(4, 3.0, 0, 0)) == {2: 3.0}

    def test_forced_switch(self) -> None:
        """A block during which the kernel took the processor away is not kept; waiting of its own does not matter."""
        assert self.kept(Block(0, 7.0, 1, 0), Block(0, 8.0, 0, 1)) == {1: 8.0}

    def test_one_lucky_loop(self) -> None:
        """A single loop far below all others does not disqualify the rest."""
        calibration = [50] + [100] * 99
        blocks = [Block(gap, 1.0, 0, 0) for gap in range(1, 98)]
        assert len(clean_blocks(blocks, calibration)) == len(blocks)


class TestPairs:
    def test_differences_of_common_rounds(self) -> None:
        """Only rounds in which both are clean count."""
        assert paired_differences({0: 1.0, 2: 5.0, 3: 1.0}, {0: 2.0, 1: 9.0, 2: 4.0}) == [1.0, -1.0]

    def test_ratios_leave_out_what_is_no_base(self) -> None:
        """A round without a base value is left out."""
        assert ratios([2.0, 0.0, 4.0], [1.0, 1.0, 6.0]) == [0.5, 1.5]

    def test_ratios_need_pairs(self) -> None:
        """Series of different lengths are a mistake."""
        with pytest.raises(ValueError, match="zip"):
            ratios([1.0], [1.0, 2.0])
