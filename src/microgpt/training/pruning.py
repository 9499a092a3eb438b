"""A trial of a sweep ends where the study of the sweep has better ones."""

from __future__ import annotations

from typing import Any

from microgpt.sweeps.study import Reporter
from microgpt.training.lightning import pl
from microgpt.training.module import GPTModule


class Pruning(pl.Callback):
    """Reports each validation, and ends the run where it is told to; what is saved then is a whole run, only short.

    Args:
        reporter: to the study.

    Attributes:
        pruned: whether it has ended the run.
    """

    def __init__(self, reporter: Reporter) -> None:
        self.reporter, self.pruned = reporter, False

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        told = trainer.is_global_zero and self.reporter.is_pruned(module.steps_done, module.val["val/loss"])
        told = bool(trainer.strategy.broadcast(told))  # one process asks, and all of them end
        if told and module.steps_done < module.schedule.end:
            self.pruned = trainer.should_stop = True
