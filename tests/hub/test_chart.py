"""Curves as text: nothing is lost in few columns, and every kind of value is drawn."""

from __future__ import annotations

import math

import pytest
from rich.style import Style

from microgpt.hub.chart import Canvas, Curve, axes_of, columns, draw, log_ticks, nice_ticks, tick_label

PLAIN = Style()


def picture(curves: list[Curve], width: int = 40, height: int = 10, **more: object) -> list[str]:
    settings: dict[str, object] = {"log": False, "cross": None, "ascii_only": False, **more}
    start, end = curves[0].steps[0], curves[0].steps[-1]
    return [t.plain for t in draw(curves, width, height, start, end, dim=PLAIN, bad=PLAIN, **settings)]  # type: ignore[arg-type]


def test_a_spike_among_a_hundred_thousand_steps_is_kept() -> None:
    steps = list(range(100_000))
    values = [1.0] * 100_000
    values[54_321] = 9.0
    found = columns(steps, values, 0, 99_999, 60)
    assert len(found) == 60
    assert max(c.high for c in found if c.high is not None) == 9.0
    assert sum(c.low == 1.0 and c.high == 9.0 for c in found) == 1


def test_every_value_falls_into_one_column() -> None:
    steps = [1, 2, 3, 5, 8, 13, 21, 34]
    found = columns(steps, [float(s) for s in steps], 1, 34, 20)
    assert [c.at for c in found] == sorted({c.at for c in found})
    assert found[0].at == 0
    assert found[-1].at == 19
    assert {c.low for c in found} | {c.high for c in found} >= {1.0, 34.0}


def test_only_the_steps_of_the_window_are_drawn() -> None:
    steps = list(range(100))
    found = columns(steps, [float(s) for s in steps], 50, 60, 30)
    assert min(c.low for c in found if c.low is not None) == 50
    assert max(c.high for c in found if c.high is not None) == 60


def test_every_line_has_the_width_that_was_asked_for() -> None:
    for width in (12, 13, 40, 199):
        rows = picture([Curve([1, 50, 1000], [1.0, 2.0, 3.0], PLAIN)], width)
        assert {len(row) for row in rows} == {width}


def test_a_rising_line_goes_from_the_lower_left_to_the_upper_right() -> None:
    rows = picture([Curve([0, 100], [0.0, 1.0], PLAIN)])
    dots = [(x, y) for y, row in enumerate(rows[:-1]) for x, c in enumerate(row) if 0x2800 < ord(c) < 0x2900]
    assert min(dots)[1] > max(dots)[1]
    assert len({x for x, _ in dots}) > 30


def test_values_that_are_no_numbers_leave_a_gap_and_a_mark() -> None:
    rows = picture([Curve([0, 1, 2, 3, 4], [1.0, 1.0, math.nan, 1.0, math.inf], PLAIN)])
    assert rows[0].count("×") == 2


def test_nothing_to_draw_says_so() -> None:
    assert any("no values yet" in row for row in picture([Curve([1], [math.nan], PLAIN)]))


def test_a_single_value_and_equal_values_are_drawn() -> None:
    for values in ([2.0], [2.0] * 5, [0.0] * 3):
        rows = picture([Curve(list(range(len(values))), values, PLAIN)])
        assert any(0x2800 < ord(c) < 0x2900 for row in rows for c in row)


def test_the_logarithmic_axis_leaves_out_what_is_not_above_zero() -> None:
    curve = Curve([0, 1, 2], [-1.0, 0.001, 1000.0], PLAIN)
    axes = axes_of([curve], 0, 2, True)
    assert axes is not None
    assert axes.log
    assert axes.low < -3 < 3 < axes.high
    below = axes_of([Curve([0, 1], [-1.0, 0.0], PLAIN)], 0, 1, True)
    assert below is not None
    assert not below.log
    assert any("0.001" in row for row in picture([curve], log=True, height=16))


def test_in_ascii_there_is_nothing_else() -> None:
    rows = picture([Curve(list(range(50)), [math.sin(i / 5) for i in range(50)], PLAIN)], ascii_only=True, cross=25)
    assert all(row.isascii() for row in rows)
    assert any("'" in row or "." in row for row in rows)


def test_the_crosshair_stands_at_its_step() -> None:
    rows = picture([Curve([0, 100], [0.0, 0.0], PLAIN)], cross=100)
    assert any(row.endswith("│") for row in rows[:-1])


def test_dashes_tell_curves_apart() -> None:
    whole = "".join(picture([Curve([0, 100], [0.0, 1.0], PLAIN)]))
    dashed = "".join(picture([Curve([0, 100], [0.0, 1.0], PLAIN, dash=2)]))
    assert sum(0x2800 < ord(c) < 0x2900 for c in dashed) <= sum(0x2800 < ord(c) < 0x2900 for c in whole)
    assert whole != dashed


def test_dots_outside_are_left_out() -> None:
    canvas = Canvas(2, 2)
    canvas.dot(-1, 0, PLAIN)
    canvas.dot(4, 0, PLAIN)
    canvas.dot(0, 8, PLAIN)
    assert all(canvas.empty(x, y) for x in (0, 1) for y in (0, 1))


@pytest.mark.parametrize("low, high, expected", [(0, 10, [0, 5, 10]), (0.12, 0.31, [0.2, 0.3]), (-1, 1, [-1, 0, 1])])
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high, 3 if low else 2) == pytest.approx(expected)


def test_ticks_of_a_logarithm_are_one_two_five() -> None:
    assert [round(10**t, 6) for t in log_ticks(0, 1)] == [1, 2, 5, 10]
    assert [round(10**t, 6) for t in log_ticks(0.2, 0.45)] == [2, 2.5]  # less than a decade


@pytest.mark.parametrize("value, text", [(0.0, "0"), (2.5, "2.5"), (5000, "5000"), (25000, "25k"), (1e-5, "1e-5")])
def test_tick_labels_are_short(value: float, text: str) -> None:
    assert tick_label(value) == text
