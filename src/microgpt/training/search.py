"""What a run finds out before it begins (`trainer.find_batch_size`, `trainer.find_lr`), written down and then used.

The run after a search has the bits of a run that was given the found values: a search works on copies, draws from
random numbers that are put back, and its outcome is laid into the config before any auto is filled.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from microgpt import files
from microgpt.config.schema import TrainConfig
from microgpt.data.mixture import Prepared
from microgpt.errors import Stopped, UsageError
from microgpt.model.gpt import GPT
from microgpt.runs.folder import RunFolder
from microgpt.runtime import StopSignals
from microgpt.training import lr_range
from microgpt.training.batch_size import find_batch_size
from microgpt.training.trial import untouched

BATCH_SIZE, LR, LR_PICTURE = "find_batch_size.json", "find_lr.json", "find_lr.png"
CONSOLE = Console(stderr=True)


def searched(
    config: TrainConfig,
    filled: Callable[[TrainConfig], TrainConfig],
    model: GPT,
    prepared: Prepared,
    device: str,
    precision: str,
    signals: StopSignals,
    folder: RunFolder,
) -> TrainConfig:
    """The config with what was found, and the searches switched off; as it was where none is asked for.

    Args:
        config: with autos.
        filled: fills them.
        model: with its initial weights; it is copied.
        prepared: the data of the run.
        device, precision: chosen by `runtime`.
        signals: one ends the search.
        folder: the run's, for find_batch_size.json, find_lr.json and find_lr.png.

    Raises:
        UsageError: the run has several devices.
        Stopped: a signal came.
    """
    wanted = [f"trainer.{key}" for key in ("find_batch_size", "find_lr") if getattr(config.trainer, key)]
    if not wanted:
        return config
    if config.device.name in ("ddp", "fsdp"):
        raise UsageError(
            f"{' and '.join(wanted)} cannot be had with device={config.device.name}",
            "search on one device, then give the values that it prints",
        )
    config = copy.deepcopy(config)
    shown = config.tracking.progress

    def told_by(bar: Callable[[int], None]) -> Callable[[int], None]:
        def told(done: int) -> None:
            bar(done)
            if signals.requested:
                raise Stopped(signals.requested, "before the first step", "start it again")

        return told

    with untouched(device):
        if config.trainer.find_batch_size:
            with _bar("trying micro-batches", None, shown) as bar:
                result = find_batch_size(model, filled(config), prepared, device, precision, told_by(bar))
            files.write_json(folder.path / BATCH_SIZE, result)
            config.data.batch_size = result["found"]["data.batch_size"]
            config.trainer.accumulate = result["found"]["trainer.accumulate"]
            if shown:
                _batch_table(result)
            _note(folder, "trainer.find_batch_size", result["found"])
        if config.trainer.find_lr:
            with _bar("trying learning rates", lr_range.STEPS, shown) as bar:
                result = lr_range.find_learning_rates(
                    model, filled(config), prepared, device, precision, told_by(bar)
                )
            files.write_json(folder.path / LR, result)
            files.write_bytes(folder.path / LR_PICTURE, lr_range.picture(result))
            for key, value in result["found"].items():
                setattr(config.optimizer, key, value)
            if shown:
                _lr_table(result)
            _note(folder, "trainer.find_lr", {f"optimizer.{key}": value for key, value in result["found"].items()})
    config.trainer.find_batch_size = config.trainer.find_lr = False
    return config


def kept(config: TrainConfig) -> TrainConfig:
    """The config of a resumed run, which searches nothing: it goes on with what it has."""
    if config.trainer.find_batch_size or config.trainer.find_lr:
        print("note: a resumed run keeps its batch size and learning rates; nothing is searched", file=sys.stderr)
        config.trainer.find_batch_size = config.trainer.find_lr = False
    return config


def _note(folder: RunFolder, what: str, found: dict[str, Any]) -> None:
    words = " ".join(f"{key}={value}" for key, value in found.items())
    folder.log(f"{what} found {words}")
    print(f"{what} found: {words}", file=sys.stderr)  # as it can be given to another run


@contextmanager
def _bar(name: str, total: int | None, shown: bool) -> Generator[Callable[[int], None]]:
    """A progress bar on a terminal."""
    if not shown or not CONSOLE.is_terminal:
        yield lambda done: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn(name), BarColumn(bar_width=20), TextColumn("{task.completed} steps"), TimeElapsedColumn())
    with Progress(*columns, console=CONSOLE, transient=True) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.update(task, completed=done)


def _table(title: str, columns: list[str], rows: list[tuple[str, ...]]) -> None:
    table = Table(title=title, title_justify="left", box=None, padding=(0, 2, 0, 0))
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number == len(columns) - 1 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    CONSOLE.print(table)


def _lr_table(result: dict[str, Any]) -> None:
    columns = [*result["before"], "smoothed loss", ""]
    _table(f"learning rates ({result['rule']})", columns, lr_range.rows_of(result))


def _batch_table(result: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = []
    for tried in result["tried"]:
        speed = f"{tried['tokens_per_s']:,} tokens/s" if "tokens_per_s" in tried else "fits" if tried["fits"] else "-"
        mark = "<- chosen" if tried["batch_size"] == result["found"]["data.batch_size"] else ""
        rows.append((f"{tried['batch_size']:,}", f"{tried['accumulate']:,}", speed, mark))
    _table(f"micro-batches of {result['rows']:,} rows a step ({result['rule']})",
           ["data.batch_size", "trainer.accumulate", "", ""], rows)  # fmt: skip
