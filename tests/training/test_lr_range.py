"""The range test's rule, on losses that are written down."""

from __future__ import annotations

import itertools

import pytest

from microgpt.config.schema import OptimizerConfig
from microgpt.training.lr_range import BACK, HIGH, LOW, STEPS, Point, Rising, chosen, scaled, smooth


def test_the_factor_rises_by_the_same_ratio_from_low_to_high() -> None:
    factors = [Rising(()).factor(i) for i in range(STEPS)]
    assert factors[0] == pytest.approx(LOW)
    assert factors[-1] == pytest.approx(HIGH)
    ratios = {round(b / a, 9) for a, b in itertools.pairwise(factors)}
    assert len(ratios) == 1


def test_means_are_weighted_to_the_late_ones_and_not_drawn_to_zero() -> None:
    assert smooth([3.0]) == [pytest.approx(3.0)]
    assert smooth([3.0] * 5) == pytest.approx([3.0] * 5)
    mean = smooth([4.0, 4.0, 4.0, 2.0])[-1]
    assert 2.0 < mean < 3.5, "late losses weigh more than early ones"


def test_the_rate_is_a_quarter_of_that_of_the_lowest_loss_and_in_the_range() -> None:
    points = [Point(0.1, 3, 3.0), Point(1, 2, 2.5), Point(8, 2, 2.0), Point(50, 3, 2.9)]
    assert chosen(points) == pytest.approx(8 / BACK)
    assert chosen([Point(LOW, 1, 1.0), Point(1, 3, 3.0)]) == LOW


def test_rates_are_scaled_together_and_written_in_three_digits() -> None:
    optimizer = OptimizerConfig(learning_rate=0.01, muon_learning_rate=0.03)
    assert scaled(optimizer, 1.23456) == {"learning_rate": 0.0123, "muon_learning_rate": 0.037}
    assert scaled(OptimizerConfig(name="adamw", learning_rate=1.0), 100.0) == {"learning_rate": 10.0}
