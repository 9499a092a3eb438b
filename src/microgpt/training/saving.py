"""Checkpoints by step, `latest` and `best`, and the saves that signals ask for."""

from __future__ import annotations

from typing import Any

from microgpt.checkpoints.folder import point, prune, step_name
from microgpt.errors import Stopped
from microgpt.runs.folder import RunFolder
from microgpt.runtime import StopSignals
from microgpt.training.lightning import pl
from microgpt.training.metrics import Metrics
from microgpt.training.module import GPTModule


class Saving(pl.Callback):
    """Writes checkpoints at optimizer-step boundaries.

    Where a validation falls on the same step it comes first, so that the checkpoint holds its outcome.

    Args:
        folder: the run's.
        interval: steps between checkpoints; 0 saves at the end only.
        keep: checkpoints kept beside the best.
        signals: a noted signal saves and ends the run, or saves and lets it go on.
        metrics: flushed before each save.
        extended: the run goes on after its end.
    """

    def __init__(
        self, folder: RunFolder, interval: int, keep: int, signals: StopSignals, metrics: Metrics, extended: bool
    ) -> None:
        self.folder, self.interval, self.keep, self.signals = folder, interval, keep, signals
        self.metrics, self.extended = metrics, extended
        self.saved_at = -1

    def _save(self, trainer: pl.Trainer, module: GPTModule) -> None:
        step = module.steps_done
        path = self.folder.checkpoints / step_name(step)
        module.use_weights()  # Lightning calls us before the module puts them back after a validation
        asked, self.signals.save = self.signals.save, False  # one that comes from now on is for the next save
        self.metrics.flush(module)  # its running mean is part of the checkpoint
        self.folder.sync()
        trainer.save_checkpoint(path, weights_only=False)
        self.folder.log(f"saved {path.name}{', as SIGUSR1 asked' if asked else ''}")
        if trainer.is_global_zero:
            point(self.folder.checkpoints, "latest", path)
            if module.best.step == step and module.validated_at == step:
                point(self.folder.checkpoints, "best", path)
            prune(self.folder.checkpoints, self.keep, verified=path)
        self.saved_at = step

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.signals.reinstall()  # Lightning has put its own handler on SIGTERM
        stopper: Any = trainer.early_stopping_callback
        if self.extended and stopper is not None:
            stopper.wait_count = 0  # a run that had lost its patience was told to go on

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        module: GPTModule = pl_module
        step, interval = module.steps_done, module.config.trainer.eval_interval or 1
        if self.signals.requested:
            self._save(trainer, module)
            raise Stopped(
                self.signals.requested,
                f"by {self.signals.requested} after step {step:,} of {module.schedule.end:,}; saved",
                f"go on with python -m microgpt.train resume={self.folder.path}",
            )
        validated_next = step % interval == 0 or step >= module.schedule.end
        due = self.interval and step % self.interval == 0
        if (due or self.signals.save) and not validated_next:
            self._save(trainer, module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        step, end = module.steps_done, module.schedule.end
        if trainer.sanity_checking or (not trainer.is_global_zero and trainer.world_size == 1):
            return
        due = self.signals.save or (self.interval and step % self.interval == 0)
        improved = module.best.step == step
        if step >= end:
            trainer.should_stop = True
        # the best is saved whenever it is found: it may be what a user takes home
        if due or improved or trainer.should_stop:
            self._save(trainer, module)
