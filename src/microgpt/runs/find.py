"""Finding runs: by folder, by MLflow id, the latest, the best."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.errors import ModelError
from microgpt.runs.folder import KILLED, RUN, RUNNING, read_run

OUTPUTS = Path("outputs")
LATEST = "latest"
MLFLOW = "mlflow.json"


@dataclass(frozen=True)
class Run:
    """A run folder with its facts.

    Attributes:
        path: the folder.
        facts: run.json.
    """

    path: Path
    facts: dict[str, Any]

    @property
    def status(self) -> str:
        """How it stands; a run that says RUNNING but whose process is gone was killed."""
        status = str(self.facts.get("status", ""))
        return KILLED if status == RUNNING and not files.is_locked(self.path) else status

    @property
    def val_loss(self) -> float:
        """Best validation loss in nats, infinity where there is none."""
        value = self.facts.get("best_val_loss")
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.inf

    @property
    def val_bpb(self) -> float:
        """Bits per byte at the best validation, infinity where there is none."""
        value = self.facts.get("best_val_bpb")
        return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else math.inf

    @property
    def mlflow_id(self) -> str:
        """The MLflow run id, or nothing."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            return str(files.read_json(self.path / MLFLOW)["run_id"])
        return ""


def all_runs(outputs: Path = OUTPUTS) -> list[Run]:
    """Every training run below a folder, oldest first."""
    found: list[Run] = []
    for pattern in (f"*/*/{RUN}", f"*/*/*/{RUN}", f"*/{RUN}"):
        for path in outputs.glob(pattern):
            if any(part.is_symlink() for part in (path.parent, path.parent.parent)):
                continue
            with suppress(ModelError):
                facts = read_run(path.parent)
                if facts.get("stage") == "train":
                    found.append(Run(path.parent, facts))
    return sorted(found, key=lambda run: (str(run.facts.get("started", "")), str(run.path)))


def point_latest(path: Path, outputs: Path = OUTPUTS) -> None:
    """Let outputs/latest point to a run; where the system has no symbolic links, nothing is done."""
    with suppress(OSError):
        outputs.mkdir(exist_ok=True)
        temporary = outputs / f".latest-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(os.path.relpath(path.resolve(), outputs.resolve()))
        os.replace(temporary, outputs / LATEST)


def _listed(runs: list[Run]) -> Iterator[str]:
    for run in runs[-3:]:
        yield str(run.path)


def as_path(reference: str) -> Path | None:
    """What a user's word would be as a path; None where it can be none (too long, or a home that nobody has)."""
    try:
        path = Path(reference).expanduser()
        path.exists()
    except (OSError, RuntimeError, ValueError):
        return None
    return path


def find_run(reference: str) -> Run:
    """The run that a user means.

    Args:
        reference: a run folder, an MLflow run id, `latest` or `best`.

    Raises:
        ModelError: there is no such run, naming some that there are.
    """
    path = as_path(reference)
    if path is not None and path.is_dir() and (path / RUN).exists():
        return Run(path.resolve() if path.is_symlink() else path, read_run(path))
    runs = all_runs()
    if reference == LATEST:
        link = OUTPUTS / LATEST
        if link.exists() and (link / RUN).exists():
            target = Path(os.path.relpath(link.resolve()))
            return Run(target, read_run(target))
        if runs:
            return runs[-1]
    elif reference == "best":
        scored = [run for run in runs if math.isfinite(run.val_loss)]
        if scored:
            return min(scored, key=lambda run: (run.val_bpb, run.val_loss))
    else:
        for run in runs:
            if reference and run.mlflow_id == reference:
                return run
    some = ", ".join(_listed(runs))
    hint = f"there are {some}" if some else "there is none in ./outputs yet: python -m microgpt.train"
    raise ModelError(f"no run {reference!r}", f"give a run folder, an MLflow run id, latest or best; {hint}")


def model_path(reference: str, checkpoint: str = "best") -> Path:
    """The model directory that a user means: a model or checkpoint folder itself, or a run's checkpoint.

    Raises:
        ModelError: there is none.
    """
    from microgpt.checkpoints.folder import META, find

    path = as_path(reference)
    if path is not None and (
        path.is_file() or (path / META).exists() or (path.is_dir() and not (path / RUN).exists())
    ):
        return path  # opening it says what is wrong with it, if anything is
    return find(find_run(reference).path / "checkpoints", checkpoint)
