"""Which runs are compared: what a user's words stand for."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from microgpt.errors import ModelError
from microgpt.runs.find import OUTPUTS, Run, all_runs, as_path, find_run
from microgpt.runs.folder import RUN, read_run

SWEEP = "-sweep"


def sweep_folder(run: Run) -> Path | None:
    """The folder of the sweep that a run is a trial of, or None."""
    above = run.path.parent
    return above if run.facts.get("sweep") or above.name.endswith(SWEEP) else None


def latest_sweep(runs: list[Run]) -> list[Run]:
    """The trials of the sweep that was started last; nothing where there was none."""
    for run in reversed(runs):
        above = sweep_folder(run)
        if above is not None:
            return [other for other in runs if other.path.parent == above]
    return []


def _inside(folder: Path) -> list[Run]:
    """The run that a folder is, or those below it."""
    if (folder / RUN).exists():
        found = Run(folder, read_run(folder))
        return [found] if found.facts.get("stage") == "train" else []
    return all_runs(folder)


def _meant(reference: str, known: list[Run]) -> list[Run]:
    """The runs of one word; nothing where it stands for none."""
    if reference == "all":
        return known
    path = as_path(reference)
    if reference and path is not None and path.is_dir():
        return _inside(Path(os.path.relpath(path.resolve())) if path.is_symlink() else path)
    if trials := [run for run in known if reference and run.facts.get("sweep") == reference]:
        return trials
    if glob.has_magic(reference):
        found: list[Run] = []
        for match in sorted(glob.glob(os.path.expanduser(reference))):
            with suppress(ModelError):  # a pattern also meets what is no run
                found += _inside(Path(match)) if os.path.isdir(match) else []
        return found
    return [find_run(reference)]


def _once(runs: list[Run]) -> Iterator[Run]:
    seen: set[Path] = set()
    for run in runs:
        where = run.path.resolve()
        if where not in seen:
            seen.add(where)
            yield run


def chosen(references: list[str]) -> list[Run]:
    """The runs that references name, each once, oldest first.

    Args:
        references: run folders, folders of runs such as a sweep's, globs of both, MLflow ids of runs or of sweeps,
            `latest`, `best` or `all`. Empty takes the latest sweep, or all runs where there is none.

    Raises:
        ModelError: a reference stands for no run, or there is none at all.
    """
    known = all_runs()
    if not references:
        found = latest_sweep(known) or known
        if not found:
            raise ModelError(f"there is no run in ./{OUTPUTS} yet", "make some: python -m microgpt.train")
        return found
    found = []
    for reference in references:
        meant = _meant(reference, known)
        if not meant:
            raise ModelError(
                f"there is no training run in {reference!r}", "give run folders, a sweep's folder, all or a glob"
            )
        found += meant
    return sorted(_once(found), key=lambda run: (str(run.facts.get("started", "")), str(run.path)))
