"""The slopes of every operation, one by one and woven together at random."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from microgpt.reference import Value, dot, linear, total

Function = Callable[[list[Value]], Value]

OPERATIONS: dict[str, tuple[Function, tuple[float, ...]]] = {
    "a + b": (lambda x: x[0] + x[1], (1.5, -0.7)),
    "a + 2": (lambda x: x[0] + 2, (1.5,)),
    "2 + a": (lambda x: 2 + x[0], (1.5,)),
    "a - b": (lambda x: x[0] - x[1], (1.5, -0.7)),
    "a - 2": (lambda x: x[0] - 2, (1.5,)),
    "2 - a": (lambda x: 2 - x[0], (1.5,)),
    "-a": (lambda x: -x[0], (1.5,)),
    "a * b": (lambda x: x[0] * x[1], (1.5, -0.7)),
    "a * 3": (lambda x: x[0] * 3, (1.5,)),
    "3 * a": (lambda x: 3 * x[0], (1.5,)),
    "a / b": (lambda x: x[0] / x[1], (1.5, -0.7)),
    "a / 4": (lambda x: x[0] / 4, (1.5,)),
    "4 / a": (lambda x: 4 / x[0], (-1.5,)),
    "a ** 2": (lambda x: x[0] ** 2, (-1.5,)),
    "a ** -0.5": (lambda x: x[0] ** -0.5, (1.5,)),
    "a ** 0": (lambda x: x[0] ** 0, (1.5,)),
    "a ** 0 at 0": (lambda x: x[0] ** 0, (0.0,)),
    "a ** 1 at 0": (lambda x: x[0] ** 1, (0.0,)),
    "exp": (lambda x: x[0].exp(), (0.3,)),
    "log": (lambda x: x[0].log(), (0.3,)),
    "relu above 0": (lambda x: x[0].relu(), (0.3,)),
    "relu below 0": (lambda x: x[0].relu(), (-0.3,)),
    "total": (lambda x: total([x[0], x[1], x[2]]) * x[0], (0.3, 0.4, -2.0)),
    "dot": (lambda x: dot([x[0], x[1]], [x[2], x[3]]), (0.3, 0.4, -2.0, 0.9)),
    "dot with itself": (lambda x: dot([x[0], x[1]], [x[0], x[1]]), (0.3, 0.4)),
    "linear": (
        lambda x: dot(linear([x[0], x[1]], [[x[2], x[3]], [x[3], x[0]]]), [x[2], x[1]]),
        (0.3, 0.4, -2.0, 0.9),
    ),
}


def central_difference(function: Function, point: Sequence[float], i: int, h: float = 1e-5) -> float:
    def at(shift: float) -> float:
        return function([Value(x + shift * (i == j)) for j, x in enumerate(point)]).data

    return (at(h) - at(-h)) / (2 * h)


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_has_the_slope_that_finite_differences_see(name: str) -> None:
    function, point = OPERATIONS[name]
    inputs = [Value(x) for x in point]
    function(inputs).backward()
    for i, value in enumerate(inputs):
        assert value.grad == pytest.approx(central_difference(function, point, i), rel=1e-6, abs=1e-8)


@pytest.mark.parametrize(
    "expression, expected",
    [
        (lambda: Value(3) + 2, 5),
        (lambda: 2 - Value(3), -1),
        (lambda: Value(3) * -2, -6),
        (lambda: 3 / Value(2), 1.5),
        (lambda: Value(2) ** -2, 0.25),
        (lambda: Value(1).exp(), math.e),
        (lambda: Value(math.e).log(), 1),
        (lambda: Value(-2).relu(), 0),
        (lambda: total([]), 0),
        (lambda: total([Value(1), Value(2)]), 3),
        (lambda: dot([Value(1), Value(2)], [Value(3), Value(4)]), 11),
    ],
)
def test_results_are_those_of_arithmetic(expression: Callable[[], Value], expected: float) -> None:
    assert expression().data == pytest.approx(expected, rel=1e-15)


# Random programs: each line applies an operation to earlier results, so that results are shared, used twice,
# or not at all, as in a real graph. The oracle is the complex-step derivative (Squire & Trapp 1998):
# f(x + ih).imag / h has no subtraction in it and is exact to the last digits, unlike a finite difference.
# Arguments are kept away from poles and overflow; `lib` holds exp, log and relu for either kind of number.
LINES: list[Callable[[Any, Any, Any], Any]] = [
    lambda lib, a, b: a + b,
    lambda lib, a, b: a - b,
    lambda lib, a, b: a * b,
    lambda lib, a, b: a / (b * b + 1.5),
    lambda lib, a, b: (a * a + 0.5) ** -0.5 * b,
    lambda lib, a, b: 2.0 / (a**2 + 1.0) - b,
    lambda lib, a, b: lib["exp"](-(a * a)) + 0.5 * b,
    lambda lib, a, b: lib["log"](a * a + 1.0),
    lambda lib, a, b: lib["relu"](a) - b,
    lambda lib, a, b: lib["dot"]([a, b, a], [b, b, a]),
    lambda lib, a, b: lib["total"]([a, b, a]),
]


def complex_relu(z: complex) -> complex:
    assume(abs(z.real) > 1e-9)  # at the kink itself, rounding alone would decide which side counts
    return z if z.real > 0 else 0j


def complex_dot(left: list[complex], right: list[complex]) -> complex:
    return sum((a * b for a, b in zip(left, right)), 0j)


ON_VALUES: dict[str, Any] = {
    "exp": Value.exp,
    "log": Value.log,
    "relu": Value.relu,
    "dot": dot,
    "total": total,
}
ON_COMPLEX: dict[str, Any] = {
    "exp": cmath.exp,
    "log": cmath.log,
    "relu": complex_relu,
    "dot": complex_dot,
    "total": sum,
}
Program = list[tuple[int, int, int]]


def execute(program: Program, inputs: Sequence[Any], lib: dict[str, Any]) -> list[Any]:
    results = list(inputs)  # of huge ones, slopes would lose digits on either side
    for line, i, j in program:
        results.append(LINES[line](lib, results[i % len(results)], results[j % len(results)]))
        assume(abs(results[-1].data if isinstance(results[-1], Value) else results[-1]) < 1e3)
    return results


@settings(max_examples=300, deadline=None)
@given(
    program=st.lists(
        st.tuples(st.integers(0, len(LINES) - 1), st.integers(0, 30), st.integers(0, 30)),
        min_size=1,
        max_size=12,
    ),
    point=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
)
def test_random_expressions_have_exact_gradients(program: Program, point: list[float]) -> None:
    inputs = [Value(x) for x in point]
    results = execute(program, inputs, ON_VALUES)
    results[-1].backward()
    for i, value in enumerate(inputs):
        h = 1e-30
        lifted = [complex(x, h * (i == j)) for j, x in enumerate(point)]
        result = execute(program, lifted, ON_COMPLEX)[-1]
        assert results[-1].data == pytest.approx(result.real, rel=1e-9, abs=1e-9)
        assert value.grad == pytest.approx(result.imag / h, rel=1e-6, abs=1e-6)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.floats(-10, 10), st.floats(-10, 10)), min_size=1, max_size=20))
def test_wide_operations_equal_the_same_thing_spelled_out(pairs: list[tuple[float, float]]) -> None:
    def gradients(wide: bool) -> list[float]:
        left, right = [Value(a) for a, _ in pairs], [Value(b) for _, b in pairs]
        if wide:
            (product,), added = linear(left, [right]), total(left)
        else:
            product = added = Value(0.0)
            for a, b in zip(left, right):
                product, added = product + a * b, added + a
        (product * added).backward()
        return [product.data, added.data, *(value.grad for value in left + right)]

    assert gradients(True) == pytest.approx(gradients(False), rel=1e-9, abs=1e-9)


def test_a_value_used_many_times_adds_up_what_each_use_reports() -> None:
    a = Value(3.0)
    b = a * a
    (b + b * a + a).backward()  # a² + a³ + a
    assert a.grad == 2 * 3 + 3 * 9 + 1


def test_a_graph_deeper_than_pythons_recursion_limit() -> None:
    x = Value(1.0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.backward()
    assert x.grad == 100_001
    del y  # letting go of the chain must not recurse either


def test_a_diamond_of_many_paths_takes_no_exponential_time() -> None:
    x = Value(1.0)
    y = x
    for _ in range(500):  # 2**500 paths
        y = (y + y) * 0.5
    y.backward()
    assert x.grad == 1.0


def test_leaves_accumulate_and_inner_values_start_afresh() -> None:
    x = Value(2.0)
    inner = x * x
    loss = inner * 3
    loss.backward()
    loss.backward()
    assert x.grad == 2 * 12
    assert inner.grad == 3
    other = inner * 5  # another loss through the same inner value
    other.backward()
    assert x.grad == 2 * 12 + 20


def test_relu_is_flat_at_its_kink() -> None:
    x = Value(0.0)
    x.relu().backward()
    assert x.grad == 0.0


def test_a_leaf_that_is_itself_the_root_accumulates_like_any_leaf() -> None:
    x = Value(2.0)
    x.backward()
    x.backward()
    assert x.grad == 2.0


def test_constants_get_no_node() -> None:
    x = Value(2.0)
    assert (x * 3).parents == (x,)
    assert (3 + x).parents == (x,)


@pytest.mark.parametrize(
    "expression",
    [lambda: Value(0).log(), lambda: Value(-1).log(), lambda: Value(-1) ** 0.5, lambda: Value(0) ** -1],
)
def test_what_is_no_real_number_is_refused(expression: Callable[[], Value]) -> None:
    with pytest.raises(ValueError):
        expression()


def test_overflow_is_refused_and_not_turned_into_infinity() -> None:
    with pytest.raises(OverflowError):
        Value(1000).exp()


def test_lengths_that_do_not_fit_are_refused() -> None:
    value = Value(1.0)
    with pytest.raises(ValueError, match="lengths"):
        dot([value], [value, value])
    with pytest.raises(ValueError, match="weights"):
        linear([value], [[value, value]])


def test_a_value_shows_its_number_and_its_gradient() -> None:
    assert repr(Value(0.5)) == "Value(data=0.5, grad=0)"
