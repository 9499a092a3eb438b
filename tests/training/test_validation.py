"""Validation costs what was asked for."""

from __future__ import annotations

import pytest

from microgpt.config.auto import EVAL_BATCHES
from microgpt.training.fit import EVAL_TOKENS, validation_batch


def test_the_whole_set_is_read_in_large_batches() -> None:
    assert validation_batch(0, 12, 64) == EVAL_TOKENS // 64


@pytest.mark.parametrize("eval_batches", [1, 8, 100, 10_000])
def test_a_part_is_no_more_rows_than_were_asked_for_from_many_places(eval_batches: int) -> None:
    asked = eval_batches * 12
    batch = validation_batch(asked, 12, 64)
    assert batch <= min(asked, EVAL_TOKENS // 64)
    assert asked // batch >= min(eval_batches, EVAL_BATCHES)
