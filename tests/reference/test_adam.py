"""Adam against its published algorithm, and the two schedules."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microgpt.reference import Adam, Schedule, Value, scheduled_rate

SCHEDULES: list[Schedule] = ["linear", "cosine"]


def adam(parameters: list[Value], **changes: object) -> Adam:
    settings = {"learning_rate": 0.01, "beta1": 0.85, "beta2": 0.99, "schedule": "linear", "max_steps": 10}
    return Adam(parameters, **(settings | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_steps_are_those_of_the_paper(schedule: Schedule) -> None:
    rng = Random(0)
    parameters = [Value(rng.gauss(0, 1)) for _ in range(5)]
    optimizer = adam(parameters, schedule=schedule)
    theta, m, v = [p.data for p in parameters], [0.0] * 5, [0.0] * 5
    for t in range(1, 11):
        for i, parameter in enumerate(parameters):
            parameter.grad = g = rng.gauss(0, 1)
            m[i] = 0.85 * m[i] + 0.15 * g
            v[i] = 0.99 * v[i] + 0.01 * g**2
            alpha = scheduled_rate(0.01, t - 1, 10, schedule)
            theta[i] -= alpha * (m[i] / (1 - 0.85**t)) / (math.sqrt(v[i] / (1 - 0.99**t)) + 1e-8)
        optimizer.step()
        assert [p.data for p in parameters] == pytest.approx(theta, rel=1e-12)


@given(st.floats(1e-3, 1e6), st.booleans())
def test_the_first_step_is_as_long_as_the_rate_whatever_the_gradient(size: float, negative: bool) -> None:
    parameter = Value(0.0)
    parameter.grad = -size if negative else size
    adam([parameter]).step()
    assert parameter.data == pytest.approx(0.01 if negative else -0.01, rel=1e-4)


def test_a_weight_without_gradient_rests() -> None:
    parameter = Value(0.5)
    adam([parameter]).step()
    assert parameter.data == 0.5


def test_a_step_clears_the_gradients() -> None:
    parameter = Value(0.5)
    parameter.grad = 1.0
    adam([parameter]).step()
    assert parameter.grad == 0.0


def test_it_finds_the_bottom_of_a_bowl() -> None:
    x, y = Value(3.0), Value(-2.0)
    optimizer = adam([x, y], learning_rate=0.2, max_steps=200)
    for _ in range(200):
        ((x - 1) ** 2 + 10 * (y + 1) ** 2).backward()
        optimizer.step()
    assert (x.data, y.data) == pytest.approx((1.0, -1.0), abs=1e-2)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_the_rate_starts_at_its_peak_never_rises_and_ends_at_zero(schedule: Schedule) -> None:
    rates = [scheduled_rate(0.01, step, 500, schedule) for step in range(502)]
    assert rates[0] == 0.01
    assert rates == sorted(rates, reverse=True)
    assert rates[250] == pytest.approx(0.005)
    assert rates[500] == rates[501] == pytest.approx(0.0, abs=1e-18)


def test_schedules_differ_as_their_names_say() -> None:
    assert scheduled_rate(1.0, 1, 4, "linear") == 0.75
    assert scheduled_rate(1.0, 1, 4, "cosine") == pytest.approx(0.5 + 0.5 * math.sqrt(0.5))


def test_step_returns_the_rate_it_used() -> None:
    optimizer = adam([], max_steps=4)
    assert [optimizer.step() for _ in range(4)] == [0.01, 0.0075, 0.005, 0.0025]


def test_an_unknown_schedule_and_an_empty_one_are_refused() -> None:
    with pytest.raises(ValueError, match="linear, cosine"):
        scheduled_rate(0.01, 0, 10, "square")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_steps"):
        adam([], max_steps=0)
