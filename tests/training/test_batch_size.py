"""The search for a micro-batch: whatever fits, the largest is found, in few tries."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microgpt.training.batch_size import divisors, largest, thinned


@given(st.integers(1, 5000), st.integers(0, 5000))
def test_the_largest_that_fits_is_found_by_doubling_and_halving(rows: int, limit: int) -> None:
    sizes, asked = divisors(rows), list[int]()

    def fits(size: int) -> bool:
        asked.append(size)
        return size <= limit

    found = largest(sizes, fits)
    assert found == max((s for s in sizes if s <= limit), default=None)
    assert len(asked) == len(set(asked)), "a size is tried once"
    assert len(asked) <= 2 * math.log2(len(sizes) + 1) + 2


@pytest.mark.parametrize("rows", [1, 7, 24, 64, 360])
def test_candidates_divide_the_rows_of_a_step_and_reach_from_one_to_all(rows: int) -> None:
    sizes = thinned(divisors(rows))
    assert sizes[0] == 1
    assert sizes[-1] == rows
    assert all(rows % s == 0 for s in sizes)
    assert len(sizes) <= 2 + math.log(rows) / math.log(1.5)
