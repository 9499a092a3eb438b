"""The comparison as data: compare.json, which the page holds too, and runs.csv."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from typing import Any

from microgpt.comparing.budgets import budgets
from microgpt.comparing.compared import POINTS, Compared, Points, thinned
from microgpt.comparing.comparison import Comparison
from microgpt.comparing.importance import importance

VERSION = 1
COLUMNS = (
    "id", "name", "status", "steps", "parameters", "tokens", "flops", "seconds", "best_val_loss", "best_val_bpb",
    "best_step",
)  # fmt: skip
#: points of all curves together; with many runs each gets fewer, at least FEWEST, so that the page stays small
ALL_POINTS = 24_000
FEWEST = 40
#: settings that fit into a label
LABELLED = 4


def _axes(run: Compared, points: Points, scale: float) -> dict[str, list[float | None]]:
    """A curve by every x axis but FLOPs, which are tokens times a constant."""
    return {
        "step": [step for step, _ in points],
        "tokens": [run.at("tokens", step) for step, _ in points],
        "seconds": [_short(run.at("seconds", step)) for step, _ in points],
        "value": [value * scale for _, value in points],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def names(runs: list[Compared]) -> list[str]:
    """What each run is called here: its folder's name, with as many folders above it as tell the runs apart."""
    parts = [run.run.path.parts for run in runs]
    for depth in range(1, max(map(len, parts), default=1) + 1):
        found = ["/".join(path[-depth:]) for path in parts]
        if len(set(found)) == len(found):
            return found
    return [run.id for run in runs]


def label(name: str, comparison: Comparison, run: Compared) -> str:
    """What a run is called in a picture: its name and what was varied."""
    varied = (f"{key.rpartition('.')[2]}={cell(comparison.value(run, key))}" for key in comparison.swept[:LABELLED])
    return "  ".join([name, *varied])


def _row(run: Compared, name: str) -> dict[str, Any]:
    """The numbers of a run, by COLUMNS."""
    return {
        "id": run.id,
        "name": name,
        "status": run.status,
        "steps": run.steps,
        "parameters": run.fact("parameters"),
        "tokens": run.tokens,
        "flops": run.flops,
        "seconds": run.seconds,
        "best_val_loss": run.best_loss,
        "best_val_bpb": run.best_bpb,
        "best_step": run.best_step,
    }


def report(comparison: Comparison) -> dict[str, Any]:
    """Everything that the comparison says, as plain values for JSON; infinities and NaN are None."""
    most = max(FEWEST, min(POINTS, ALL_POINTS // max(1, len(comparison.runs))))
    keys = comparison.differing
    runs: list[dict[str, Any]] = []
    for run, name in zip(comparison.runs, names(comparison.runs)):
        scale = comparison.scale(run)
        runs.append(
            {
                **_row(run, name),
                "label": label(name, comparison, run),
                "error": run.error,
                "max_steps": run.fact("max_steps"),
                "flops_per_token": run.fact("flops_per_token"),
                "score": comparison.score(run),
                "settings": {key: comparison.value(run, key) for key in keys},
                "validation": _axes(run, thinned(comparison.validations(run), most), 1.0),
                "training": _axes(run, thinned(run.smooth if scale else [], most), scale or 1.0),
            }
        )
    explaining = comparison.explaining
    columns = {key: [comparison.value(run, key) for run in comparison.scored] for key in explaining}
    scores = [score for run in comparison.scored if (score := comparison.score(run)) is not None]
    return {
        "version": VERSION,
        "measure": comparison.measure,
        "unit": comparison.unit,
        "notes": comparison.notes,
        "keys": keys,
        "swept": comparison.swept,
        "runs": runs,
        "importance": asdict(importance(columns, scores)),
        "budgets": {axis: [asdict(b) for b in budgets(comparison, axis)] for axis in ("flops", "seconds")},
    }


def cell(value: Any) -> str:
    """A setting as a command line would take it; auto where it was left to the program."""
    if value is None:
        return "auto"
    return value if isinstance(value, str) else json.dumps(value)


def table(told: dict[str, Any]) -> str:
    """runs.csv: a row a run, best first, with every setting in which the runs differ.

    A text that a spreadsheet would take for a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*COLUMNS, *told["keys"]])
    for run in told["runs"]:
        numbers = ["" if run[name] is None else run[name] for name in COLUMNS]
        settings = [cell(run["settings"][key]) for key in told["keys"]]
        writer.writerow([_inert(value) for value in (*numbers, *settings)])
    return out.getvalue()


def _inert(value: Any) -> Any:
    if isinstance(value, str):  # of a folder whose name is no UTF-8
        value = value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        try:
            float(value)
        except ValueError:
            return "'" + value
    return value
