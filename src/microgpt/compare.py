"""`python -m microgpt.compare`: runs beside each other, as a page that stands alone, a table and a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import CompareConfig
    from microgpt.runs.find import Run

PAGE, DATA, TABLE, PICTURE = "compare.html", "compare.json", "runs.csv", "curves.png"
#: rows and settings that a terminal has room for
ROWS, SETTINGS = 10, 5
WIDE = 110


def _reading(shown: bool) -> Any:
    """Wraps the runs with a bar while they are read, on a terminal only."""

    def wrapped(runs: Iterable[Run]) -> Iterable[Run]:
        if not shown or not sys.stderr.isatty():
            return runs
        from rich.console import Console
        from rich.progress import track

        return track(list(runs), "reading runs", console=Console(stderr=True), transient=True)

    return wrapped


def run_compare(config: CompareConfig, overrides: list[str], output: Path) -> None:
    """The stage."""
    import json

    from microgpt import files
    from microgpt.comparing.choose import chosen
    from microgpt.comparing.comparison import compared
    from microgpt.comparing.page import page
    from microgpt.comparing.picture import picture
    from microgpt.comparing.report import report, table
    from microgpt.errors import MicrogptError

    try:
        runs = chosen(config.runs)
    except MicrogptError:
        with suppress(OSError):  # the folder was made before it was known that there is nothing for it
            output.rmdir()
        raise
    comparison = compared(runs, _reading(config.tracking.progress)).top(config.top)
    told = report(comparison)
    folder = Path(os.path.relpath(output))
    try:
        files.make_folder(folder)
    except OSError as error:
        raise files.disk_error(error, folder, 0) from error
    files.write_text(folder / DATA, json.dumps(told, indent=1, allow_nan=False) + "\n")
    files.write_text(folder / TABLE, table(told))
    files.write_bytes(folder / PICTURE, picture(told))
    files.write_text(folder / PAGE, page(told, runtime.now_iso()))
    if config.tracking.progress:
        show(told, folder)


def show(told: dict[str, Any], folder: Path) -> None:
    """Print the best runs with what was varied, where the report is, and what comes next."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microgpt.comparing.page import amount, duration, number
    from microgpt.comparing.report import cell
    from microgpt.errors import printable

    console = Console(stderr=True)
    runs, by_bytes = told["runs"], told["measure"] == "val/bpb"
    wide = console.width >= WIDE
    keys = (told["swept"] or told["keys"])[: SETTINGS if wide else SETTINGS - 1]
    title = f"{len(runs)} run{'s' if len(runs) > 1 else ''}, lowest {'bits a byte' if by_bytes else 'loss'} first"
    shown = Table(title=title, title_justify="left")
    leaves = [key.rpartition(".")[2] for key in keys]
    for name in ("run", *(leaf if leaves.count(leaf) == 1 else key for leaf, key in zip(leaves, keys))):
        shown.add_column(escape(printable(name)), overflow="fold")
    for name in ("loss", "bits a byte", "steps", *(("parameters", "time") if wide else ())):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("status", no_wrap=True)
    for run in runs[:ROWS]:
        texts = [run["name"], *(cell(run["settings"][key]) for key in keys)]
        numbers = [number(run["best_val_loss"]), number(run["best_val_bpb"]), f"{run['steps']:,}"]
        numbers += [amount(run["parameters"]), duration(run["seconds"])] if wide else []
        shown.add_row(*(escape(printable(text)) for text in texts), *numbers, run["status"].lower())
    console.print(shown)
    if len(runs) > ROWS:
        console.print(f"and {len(runs) - ROWS} more in the report", highlight=False)
    for note in told["notes"]:
        console.print(f"note: {printable(note)}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"\nwritten: {folder / PAGE} (open it in a browser), {TABLE}, {DATA}, {PICTURE}",
                  highlight=False, markup=False, soft_wrap=True)  # fmt: skip
    best = runs[0]
    following = f"python -m microgpt.evaluate run={best['id']}" if best["score"] is not None else "microgpt runs"
    console.print(f"next:    {following}", highlight=False, markup=False, soft_wrap=True)


def main() -> int:
    """Entry point."""
    return stage_main("compare", run_compare)


if __name__ == "__main__":
    sys.exit(main())
