"""The training "data set" that Lightning sees: spans of optimizer steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from microgpt.training.module import GPTModule


@dataclass(frozen=True)
class Span:
    """Optimizer steps start..stop-1, run in one `training_step`."""

    start: int
    stop: int


class Spans:
    """Spans of steps up to the next validation. Lightning's epoch is one such stretch."""

    def __init__(self, module: GPTModule) -> None:
        self.module = module

    def __iter__(self) -> Iterator[Span]:
        module, trainer = self.module, self.module.config.trainer
        interval, saving = trainer.eval_interval or 1, trainer.checkpoint_interval or 0
        step = module.steps_done
        end = min(module.schedule.end, (step // interval + 1) * interval)
        while step < end:
            stop = min(end, step + (trainer.steps_per_call or 1))
            if saving:
                stop = min(stop, (step // saving + 1) * saving)
            yield Span(step, stop)
            step = stop
