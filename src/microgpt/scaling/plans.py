"""Which models a scaling study trains: for each depth and budget the steps that spend it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from microgpt.config.auto import resolved_shape
from microgpt.config.depth import shape
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.model.shapes import parameter_shapes
from microgpt.training.estimate import flops_per_token

TIMES = 4.0  # the larger budget over the largest small one, where none is given


@dataclass(frozen=True)
class Planned:
    """A model of a study.

    Attributes:
        depth: `model.depth`.
        budget: operations that were asked for.
        steps: optimizer steps.
        compute: operations that these steps are.
        parameters: all trained numbers.
    """

    depth: int
    budget: float
    steps: int
    compute: float
    parameters: int

    @property
    def name(self) -> str:
        """Of its run folder."""
        return f"depth{self.depth}-steps{self.steps}"


def numbers(key: str, texts: list[str], low: float) -> list[float]:
    """A list of the config as numbers, smallest first.

    Raises:
        UsageError: one is none, or too small.
    """
    try:
        found = sorted({float(text) for text in texts})
    except ValueError:
        found = []
    if not found or not all(math.isfinite(n) and n >= low for n in found):
        raise UsageError(f"{key}=[{','.join(texts)}]: must be numbers from {low:g} on", f"for example {key}=[1,2,3]")
    return found


def planned(config: TrainConfig, depth: int, budget: float, vocab_size: int, train_tokens: int) -> Planned:
    """A model of a depth with the steps that come nearest to a budget.

    Args:
        config: of all models, with autos.
        depth: of this one.
        budget: operations.
        vocab_size, train_tokens: of the data.
    """
    c = copy.deepcopy(config)
    c.model.depth = depth
    for key, value in shape(depth).items():
        setattr(c.model, key, value)
    c.trainer.max_steps = None
    parameters = sum(math.prod(s) for s in parameter_shapes(c.model, vocab_size).values())
    filled = resolved_shape(c, train_tokens, parameters)
    rows = (filled.data.batch_size or 1) * filled.trainer.accumulate
    a_step = flops_per_token(c.model, vocab_size) * rows * c.model.block_size
    steps = max(1, round(budget / a_step))
    return Planned(depth, budget, steps, float(a_step * steps), parameters)


def larger_depth(best_depth: int, ratio: float) -> int:
    """The depth whose size has grown as the square root of compute (Hoffmann et al. 2022), as N^3 grows with depth.

    Args:
        best_depth: of the best model at the largest small budget.
        ratio: of the larger budget to that.
    """
    return max(best_depth + 1, round(best_depth * ratio ** (1 / 6)))
