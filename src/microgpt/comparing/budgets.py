"""The best loss at equal compute and at equal time."""

from __future__ import annotations

from dataclasses import dataclass

from microgpt.comparing.comparison import Comparison

HALVINGS = 6
SHOWN = 3


@dataclass(frozen=True)
class Place:
    """A run within a budget: its lowest validation that cost no more, and the step of it."""

    run: int
    score: float
    step: int


@dataclass(frozen=True)
class Budget:
    """What could be had for an amount.

    Attributes:
        amount: FLOPs or seconds of training.
        best: the best runs within it, the best first; runs are numbered as in the comparison.
        spent: runs that trained for that much or more.
    """

    amount: float
    best: list[Place]
    spent: int


def budgets(comparison: Comparison, axis: str) -> list[Budget]:
    """The largest amount that any run has used, and its halves, smallest first.

    An amount that no validation was made within is left out. A run that ended earlier takes part with what it had:
    it was within the budget.

    Args:
        comparison: the runs.
        axis: `flops` or `seconds`.
    """
    spent: list[float] = []
    costs: list[list[tuple[float, float, int]]] = []
    for run in comparison.runs:
        spent.append(run.at(axis, run.steps) or 0.0)
        placed = [(run.at(axis, step), value, step) for step, value in comparison.validations(run)]
        costs.append([(cost, value, step) for cost, value, step in placed if cost is not None])
    most = max(spent, default=0.0)
    found: list[Budget] = []
    for halved in reversed(range(HALVINGS)):
        amount = most / 2**halved
        limit = amount * (1 + 1e-9)
        within = [
            Place(number, *min((value, step) for cost, value, step in points if cost <= limit))
            for number, points in enumerate(costs)
            if any(cost <= limit for cost, _, _ in points)
        ]
        if within:
            within.sort(key=lambda place: place.score)
            reached = sum(one * (1 + 1e-9) >= amount for one in spent)
            found.append(Budget(amount, within[:SHOWN], reached))
    return found
