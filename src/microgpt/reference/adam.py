"""Adam: how far each weight moves, given its gradient.

The plain rule, `weight -= rate * gradient`, has one rate for all. Adam gives each weight a step of about
the same size, by dividing the average of its recent gradients by their typical magnitude: a weight
whose gradients agree moves by nearly the full rate, one whose gradients quarrel hardly at all.

Source: Kingma & Ba 2014, arXiv 1412.6980, algorithm 1, with the rate falling to 0 over training.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, get_args

from .value import Value

__all__ = ["Adam", "Schedule", "scheduled_rate"]

Schedule = Literal["linear", "cosine"]


def scheduled_rate(peak: float, step: int, max_steps: int, schedule: Schedule) -> float:
    """Learning rate of a step: `peak` at step 0, falling to 0 at `max_steps` and staying there.

    step: steps done before this one. 'linear' falls evenly; 'cosine' slowly at both ends.
    """
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule {schedule!r} is none of {', '.join(get_args(Schedule))}")
    progress = min(step / max_steps, 1.0)
    if schedule == "linear":
        return peak * (1.0 - progress)
    return peak * 0.5 * (1.0 + math.cos(math.pi * progress))


class Adam:
    """The optimizer, with one pair of averages for each weight.

    parameters: the weights it moves. learning_rate: the highest one, at the first step.
    beta1, beta2: share of the old average that a step keeps, of the gradient and of its square.
    max_steps: where the rate reaches 0. eps: keeps the division finite for a weight at rest.
    steps_done: how many steps it has made.
    """

    def __init__(
        self,
        parameters: Sequence[Value],
        *,
        learning_rate: float,
        beta1: float,
        beta2: float,
        schedule: Schedule,
        max_steps: int,
        eps: float = 1e-8,
    ) -> None:
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps}, must be at least 1")
        self.parameters = list(parameters)
        self.learning_rate, self.beta1, self.beta2, self.eps = learning_rate, beta1, beta2, eps
        self.schedule: Schedule = schedule
        self.max_steps = max_steps
        self.steps_done = 0
        self._mean = [0.0] * len(self.parameters)
        self._square = [0.0] * len(self.parameters)

    def step(self) -> float:
        """Moves every weight against its gradient, sets the gradients back to 0, returns the rate used."""
        rate = scheduled_rate(self.learning_rate, self.steps_done, self.max_steps, self.schedule)
        self.steps_done += 1
        beta1, beta2, eps = self.beta1, self.beta2, self.eps
        # The averages start at 0 and so begin too small; these are the shares they have filled up to.
        mean_share = 1.0 - beta1**self.steps_done
        square_share = 1.0 - beta2**self.steps_done
        means, squares = self._mean, self._square
        for i, parameter in enumerate(self.parameters):
            grad = parameter.grad
            means[i] = mean = beta1 * means[i] + (1.0 - beta1) * grad
            squares[i] = square = beta2 * squares[i] + (1.0 - beta2) * grad * grad
            parameter.data -= rate * (mean / mean_share) / (math.sqrt(square / square_share) + eps)
            parameter.grad = 0.0
        return rate
