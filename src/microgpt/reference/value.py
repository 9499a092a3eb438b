"""One number that remembers how it was made: the whole of automatic differentiation.

Training asks one question of every weight: if you grew a little, how much would the loss grow? A
`Value` answers it with the chain rule. It holds a number and two short tuples: the values it was
computed from (`parents`) and, for each of them, the slope of this number along that one (`slopes`).
The slopes are known the moment the operation is done, so they are stored as plain floats:

    c = a * b        c.parents = (a, b)        c.slopes = (b.data, a.data)

Calling `loss.backward()` then walks from the loss towards the weights. Each value hands its parents
`slope * its own gradient`, and a parent adds up what it receives from all who used it.

Two operations are wider than they need to be. `total` and `dot` could be written with + and *, but
then a dot product of 16 numbers would be 31 values; as one value with 32 parents it takes a fraction of
the time and says the same thing.

Source of the method: reverse-mode accumulation, S. Linnainmaa 1970; the scalar form made popular by
micrograd, A. Karpathy 2020.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from operator import mul

__all__ = ["Value", "dot", "linear", "total"]


class Value:
    """A scalar in a graph of computations.

    data: the number. grad: d(root)/d(this), filled in by `root.backward()`; 0.0 before.
    parents: the values this one was computed from; empty for a leaf (a weight or an input).
    slopes: d(this)/d(parent), one float for each parent.

    The other operand of + - * / may be a plain number. It gets no node, for nobody asks its gradient.
    """

    __slots__ = ("data", "grad", "parents", "slopes")

    def __init__(self, data: float, parents: tuple[Value, ...] = (), slopes: tuple[float, ...] = ()) -> None:
        self.data = data
        self.grad = 0.0
        self.parents = parents
        self.slopes = slopes

    def __repr__(self) -> str:
        return f"Value(data={self.data:.6g}, grad={self.grad:.6g})"

    def __add__(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            return Value(self.data + other.data, (self, other), (1.0, 1.0))
        return Value(self.data + other, (self,), (1.0,))

    def __sub__(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            return Value(self.data - other.data, (self, other), (1.0, -1.0))
        return Value(self.data - other, (self,), (1.0,))

    def __mul__(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            return Value(self.data * other.data, (self, other), (other.data, self.data))
        return Value(self.data * other, (self,), (other,))

    def __truediv__(self, other: Value | float) -> Value:
        if isinstance(other, Value):
            ratio = self.data / other.data
            return Value(ratio, (self, other), (1.0 / other.data, -ratio / other.data))
        return Value(self.data / other, (self,), (1.0 / other,))

    def __pow__(self, exponent: float) -> Value:
        """This number to a constant power.

        Raises ValueError where the result or the slope is not a real number: a negative number to a
        fraction (Python's own ** would slip into complex numbers), or zero to a power below one.
        """
        slope = exponent * math.pow(self.data, exponent - 1.0) if exponent else 0.0
        return Value(math.pow(self.data, exponent), (self,), (slope,))

    def __neg__(self) -> Value:
        return Value(-self.data, (self,), (-1.0,))

    def __radd__(self, other: float) -> Value:
        return self + other

    def __rsub__(self, other: float) -> Value:
        return Value(other - self.data, (self,), (-1.0,))

    def __rmul__(self, other: float) -> Value:
        return self * other

    def __rtruediv__(self, other: float) -> Value:
        ratio = other / self.data
        return Value(ratio, (self,), (-ratio / self.data,))

    def exp(self) -> Value:
        """e to this number. The only function that is its own slope. OverflowError above 709.78."""
        power = math.exp(self.data)
        return Value(power, (self,), (power,))

    def log(self) -> Value:
        """Natural logarithm, so that losses come in nats. ValueError at or below zero."""
        return Value(math.log(self.data), (self,), (1.0 / self.data,))

    def relu(self) -> Value:
        """This number where it is positive, else 0. At 0 exactly, where no slope exists, 0 is taken."""
        if self.data > 0.0:
            return Value(self.data, (self,), (1.0,))
        return Value(0.0, (self,), (0.0,))

    def backward(self) -> None:
        """Adds d(self)/d(leaf) to the `grad` of every leaf this value depends on.

        Leaves accumulate over calls, so gradients of several losses can be summed; whoever updates a
        leaf sets its `grad` back to 0.0 (`Adam.step` does). Values in between start from zero each time.
        """
        # A value may hand its gradient on only when everyone who used it has reported. Listing each
        # value after its parents, and then reading the list backwards, guarantees that. A function that
        # calls itself would be shorter, but Python stops at a depth of 1000 and a loss is deeper.
        # Leaves have nobody to report to and stay out of the list: they are half of all edges.
        order: list[Value] = []
        seen: set[Value] = set()
        stack: list[Value | None] = [self]
        while stack:
            value = stack.pop()
            if value is None:  # the mark below: all ancestors of the value beneath it are listed
                finished = stack.pop()
                assert finished is not None
                finished.grad = 0.0
                order.append(finished)
            elif value.parents and value not in seen:
                seen.add(value)
                stack += (value, None)
                stack += [parent for parent in value.parents if parent.parents and parent not in seen]

        self.grad += 1.0  # d(self)/d(self)
        for value in reversed(order):
            grad = value.grad
            for parent, slope in zip(value.parents, value.slopes):
                parent.grad += slope * grad


def total(values: Iterable[Value]) -> Value:
    """The sum of any number of values, as one value. Empty: 0."""
    parents = tuple(values)
    return Value(sum([value.data for value in parents]), parents, (1.0,) * len(parents))


def dot(left: Sequence[Value], right: Sequence[Value]) -> Value:
    """Sum of left[i] * right[i], as one value.

    left, right: n values each; ValueError where the lengths differ. The slope along left[i] is
    right[i], and the other way round.
    """
    if len(left) != len(right):
        raise ValueError(f"a dot product needs two equal lengths, got {len(left)} and {len(right)}")
    left_data = tuple([value.data for value in left])
    right_data = tuple([value.data for value in right])
    return Value(sum(map(mul, left_data, right_data)), (*left, *right), right_data + left_data)


def linear(x: Sequence[Value], weight: Sequence[Sequence[Value]]) -> list[Value]:
    """A matrix times a vector: [dot(row, x) for row in weight].

    x: n_in values. weight: n_out rows of n_in values. Returns n_out values; ValueError where a row
    does not fit x. Nearly all arithmetic of the model happens in this function, so it reads x once
    and not once for every row; otherwise it is `dot`.
    """
    inputs = tuple(x)
    input_data = tuple([value.data for value in inputs])
    outputs: list[Value] = []
    for row in weight:
        if len(row) != len(inputs):
            raise ValueError(f"a row of {len(row)} weights meets {len(inputs)} inputs")
        row_data = tuple([value.data for value in row])
        outputs.append(Value(sum(map(mul, row_data, input_data)), (*row, *inputs), input_data + row_data))
    return outputs
