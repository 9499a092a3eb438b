"""The law is found again from points that obey it, and never says what more compute cannot do."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.scaling.law import fitted
from microgpt.scaling.plans import larger_depth, numbers


@settings(deadline=None)  # the machine may be busy
@given(st.floats(0.0, 3.0), st.floats(0.05, 2.0), st.floats(0.05, 1.0))
def test_a_law_is_found_again_from_its_own_points(floor: float, scale: float, alpha: float) -> None:
    budgets = [1e12, 2e12, 4e12, 1e13, 3e13]
    law = fitted([(c, floor + scale * (c / 5e12) ** -alpha) for c in budgets])
    beyond = 1e14
    assert law.residual < 5e-3 * scale
    assert law.loss(beyond) == pytest.approx(floor + scale * (beyond / 5e12) ** -alpha, abs=0.02)


@settings(deadline=None)
@given(st.lists(st.floats(0.5, 10.0), min_size=3, max_size=6))
def test_whatever_the_losses_the_law_falls_and_stays_above_zero(losses: list[float]) -> None:
    law = fitted([(10.0 ** (9 + i), loss) for i, loss in enumerate(losses)])
    assert law.floor >= 0
    assert law.scale >= 0
    found = [law.loss(10.0**p) for p in range(8, 20)]
    assert all(math.isfinite(v) and v >= 0 for v in found)
    assert found == sorted(found, reverse=True)


def test_three_budgets_are_the_fewest() -> None:
    with pytest.raises(ValueError, match="3 budgets"):
        fitted([(1e9, 3.0), (1e9, 2.9), (2e9, 2.5)])


def test_size_grows_as_the_square_root_of_compute() -> None:
    assert larger_depth(4, 64.0) == 8, "64 times the compute, 8 times the weights, twice the depth"
    assert larger_depth(3, 2.0) == 4, "the larger model is larger"


def test_lists_of_the_config_are_numbers_in_order() -> None:
    assert numbers("sweep.budgets", ["4e9", "1e9", "2e9", "2e9"], 1) == [1e9, 2e9, 4e9]
    for wrong in ([], ["x"], ["0"], ["nan"], ["-3"]):
        with pytest.raises(Exception, match=r"sweep\.budgets"):
            numbers("sweep.budgets", wrong, 1)
