"""The run folders that a browser may ask for: those below ./outputs, by name, never by a path of its own."""

from __future__ import annotations

import math
from pathlib import Path

from microgpt.checkpoints.folder import checkpoints_in
from microgpt.errors import ModelError
from microgpt.lab.messages import Known
from microgpt.lab.refusals import Refusal, printable
from microgpt.runs.find import LATEST, OUTPUTS, all_runs, find_run

MOST = 200


def listed() -> list[Known]:
    """Runs that have a checkpoint, newest first."""
    found: list[Known] = []
    for run in reversed(all_runs()):
        steps = checkpoints_in(run.path / "checkpoints")
        if steps and len(found) < MOST:
            found.append(
                Known(
                    run=str(run.path.relative_to(OUTPUTS)),
                    name=printable(str(run.facts.get("name", run.path.name)))[:64],
                    status=run.status,
                    step=steps[-1][0],
                    val_loss=run.val_loss if math.isfinite(run.val_loss) else None,
                    started=printable(str(run.facts.get("started", "")))[:64],
                )
            )
    return found


def named(reference: str) -> Path:
    """The folder of a run by its place below outputs, its folder's name, its MLflow id, `latest` or `best`.

    Raises:
        Refusal: there is none.
    """
    if reference in (LATEST, "best"):
        try:
            return find_run(reference).path
        except ModelError:
            raise Refusal(404, "there is no run yet") from None
    for run in all_runs():
        if reference in (str(run.path.relative_to(OUTPUTS)), run.path.name) or reference == (run.mlflow_id or None):
            return run.path
    raise Refusal(404, "there is no such run below outputs; GET /api/runs lists them")
