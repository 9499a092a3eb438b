"""What a sweep shows: a bar while other processes work at its trials, and the table at its end."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from microgpt.errors import printable
from microgpt.runs.find import Run
from microgpt.runs.folder import FAILED, RUN, read_run
from microgpt.sweeps.trial import NOTE, read_trial, standing

SHOWN = 30


@dataclass(frozen=True)
class Row:
    """A trial as the table shows it.

    Attributes:
        number: of the trial.
        swept: key to value of what was swept.
        val_loss: best validation loss in nats a token, infinity where there is none.
        status: as in run.json; `not begun` where there is none yet.
        reason: of a failure.
    """

    number: int
    swept: dict[str, str]
    val_loss: float
    status: str
    reason: str


def row_of(folder: Path) -> Row | None:
    """The row of a trial's folder; None where it holds no trial."""
    trial = read_trial(folder)
    if trial is None:
        return None
    facts = read_run(folder) if (folder / RUN).exists() else {}
    status = standing(folder) or "not begun"
    words = [word.lstrip("+").partition("=") for word in trial.swept]
    swept = {key: value for key, _, value in words}
    reason = str(facts.get("error", "")) if status == FAILED else ""
    return Row(trial.number, swept, Run(folder, facts).val_loss, status, reason)


def rows_of(folder: Path) -> list[Row]:
    """The trials of a sweep's folder, best first."""
    found = [row for note in folder.glob(f"*/{NOTE}") if (row := row_of(note.parent)) is not None]
    return sorted(found, key=lambda row: (row.val_loss, row.number))


def show(rows: list[Row]) -> None:
    """Print the table of trials on standard error."""
    console = Console(stderr=True)
    keys = list(dict.fromkeys(key for row in rows for key in row.swept))
    leaves = [key.rpartition(".")[2] for key in keys]
    names = [leaf if leaves.count(leaf) == 1 else key for key, leaf in zip(keys, leaves)]
    table = Table(title=f"{len(rows)} trials, best first", title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right")
    for name in names:
        table.add_column(escape(name), overflow="fold")
    table.add_column("val loss", justify="right")
    table.add_column("status", overflow="fold")
    for row in rows[:SHOWN]:
        loss = f"{row.val_loss:.4f}" if math.isfinite(row.val_loss) else "-"
        status = row.status + (f": {printable(row.reason)[:80]}" if row.reason else "")
        values = [escape(printable(short(row.swept.get(key, "")))) for key in keys]
        table.add_row(str(row.number), *values, loss, escape(status))
    console.print()
    console.print(table)
    if len(rows) > SHOWN:
        console.print(f"and {len(rows) - SHOWN} more", style="dim")


def short(value: str) -> str:
    """A number with the digits that tell values apart; other texts as they are."""
    try:
        return f"{float(value):.4g}" if "." in value or "e" in value.lower() else value
    except ValueError:
        return value


class TrialBar:
    """A progress bar over trials that other processes work at.

    Args:
        total: trials of the sweep.
        shown: whether there is a bar at all.
    """

    def __init__(self, total: int, shown: bool) -> None:
        columns: tuple[Any, ...] = (TextColumn("trials"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), disable=not shown)
        self._shown = shown
        self._task = self._bar.add_task("", total=total)
        self._told: set[int] = set()

    def __enter__(self) -> TrialBar:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def ended(self, row: Row) -> None:
        """Say once of a trial that it has ended."""
        if row.number in self._told:
            return
        self._told.add(row.number)
        self._bar.advance(self._task)
        if self._shown:
            loss = f", validation loss {row.val_loss:.4f}" if math.isfinite(row.val_loss) else ""
            reason = f": {printable(row.reason)[:120]}" if row.reason else ""
            swept = " ".join(f"{key}={short(value)}" for key, value in row.swept.items())
            text = f"trial {row.number} ({printable(swept)}): {row.status}{loss}{reason}"
            self._bar.console.print(escape(text), highlight=False, soft_wrap=True)
