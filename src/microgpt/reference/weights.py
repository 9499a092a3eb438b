"""Weights as plain nested lists, the form in which they leave and enter this package.

A matrix is a list of rows of floats, a model a dict of matrices by name. That is all another
implementation needs to compare itself with this one, or to store what was trained here; files and
arrays are its own affair.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from .gpt import GPT, Config, State
from .value import Value

__all__ = ["Arrays", "from_arrays", "gradients_to_arrays", "to_arrays"]

Arrays = dict[str, list[list[float]]]


def to_arrays(model: GPT) -> Arrays:
    """The weights of a model: name -> rows x columns, as `Config.shapes` lists them. A copy."""
    return {name: [[value.data for value in row] for row in rows] for name, rows in model.state.items()}


def gradients_to_arrays(model: GPT) -> Arrays:
    """The gradients that `backward()` left on the weights, in the same form. All 0 before it and after a
    step of the optimizer."""
    return {name: [[value.grad for value in row] for row in rows] for name, rows in model.state.items()}


def from_arrays(config: Config, arrays: Mapping[str, Sequence[Sequence[float]]]) -> GPT:
    """A model with the given weights.

    ValueError that lists every matrix which is missing, unknown, of the wrong shape, or not finite.
    """
    shapes = config.shapes()
    problems = [f"{name} is missing" for name in shapes if name not in arrays]
    problems += [f"{name} is unknown" for name in arrays if name not in shapes]
    state: State = {}
    for name, (rows, columns) in shapes.items():
        matrix = arrays.get(name)
        if matrix is None:
            continue
        state[name] = [[Value(float(number)) for number in row] for row in matrix]
        if len(matrix) != rows or any(len(row) != columns for row in matrix):
            problems.append(f"{name} is not {rows} x {columns}")
        elif not all(math.isfinite(value.data) for row in state[name] for value in row):
            problems.append(f"{name} holds a number that is not finite")
    if problems:
        raise ValueError("; ".join(problems))
    return GPT(config, state)
