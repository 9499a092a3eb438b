"""The progress bar of a run: loss, validation loss, speed, time left; plain lines without a terminal."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from microgpt.training.lightning import pl
from microgpt.training.metrics import Metrics
from microgpt.training.module import GPTModule

REDRAW_SECONDS = 0.1


class ProgressBar(pl.Callback):
    """Draws on standard error.

    Args:
        metrics: where the numbers come from.
        shown: False draws nothing.
    """

    def __init__(self, metrics: Metrics, shown: bool) -> None:
        self.metrics, self.shown = metrics, shown
        self.console = Console(stderr=True)
        self.bar: Progress | None = None
        self._task: Any = None
        self._last = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        if not self.shown or not self.console.is_terminal or not trainer.is_global_zero:
            return
        columns = (
            TextColumn("[bold]step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[numbers]}"),
            TimeRemainingColumn(compact=True),
        )
        self.bar = Progress(*columns, console=self.console, transient=False)
        self._task = self.bar.add_task("", total=module.schedule.end, completed=module.steps_done, numbers="")
        self.bar.start()

    def _numbers(self) -> str:
        latest = self.metrics.latest
        parts = [f"loss {self.metrics.smooth_loss:.3f}"] if latest else []
        if "val/loss" in latest:
            parts.append(f"val {latest['val/loss']:.3f}")
        if "perf/tokens_per_s" in latest:
            parts.append(f"{latest['perf/tokens_per_s']:,.0f} tok/s")
            parts.append(f"MFU {latest.get('perf/mfu', 0):.0f} %")
        return "  ".join(parts)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self.bar is not None and now - self._last >= REDRAW_SECONDS:
            self._last = now
            self.bar.update(self._task, completed=pl_module.steps_done, numbers=self._numbers())

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        if self.bar is not None:
            self.bar.update(self._task, completed=module.steps_done, numbers=self._numbers())
        elif self.shown and trainer.is_global_zero:
            self.console.print(
                f"step {module.steps_done:>6} / {module.schedule.end}  {self._numbers()}", highlight=False
            )

    def _end(self) -> None:
        if self.bar is not None:
            self.bar.stop()
            self.bar = None

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self._end()

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self._end()
