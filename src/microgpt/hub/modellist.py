"""All models below the outputs: checkpoints of runs, and exports."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from microgpt import files
from microgpt.checkpoints.folder import META, checkpoints_in, pointed
from microgpt.runs.find import all_runs


@dataclass(frozen=True)
class ModelRow:
    """A model directory.

    Attributes:
        path: the folder.
        name: run and step, or run and export.
        step: that it was saved at.
        val_loss, val_bpb: of that step, None where they are not known.
        bytes: in its files.
        marks: best, latest, export.
        chat: whether it was trained on conversations.
    """

    path: Path
    name: str
    step: int
    val_loss: float | None
    val_bpb: float | None
    bytes: int
    marks: tuple[str, ...]
    chat: bool


def _score(value: object) -> float | None:
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else None


def model_rows(outputs: Path) -> list[ModelRow]:
    """The newest run's first, and of a run the newest checkpoint first."""
    found: list[ModelRow] = []
    for run in reversed(all_runs(outputs)):
        folder = run.path / "checkpoints"
        best, latest = pointed(folder, "best"), pointed(folder, "latest")
        for step, path in reversed(checkpoints_in(folder)):
            marks = tuple(n for n, p in (("best", best), ("latest", latest)) if p == path)
            found += _row(path, f"{run.path.name} {path.name}", step, marks)
        for meta in sorted((run.path / "export").glob(f"**/{META}")):
            found += _row(meta.parent, f"{run.path.name} {meta.parent.name}", 0, ("export",))
    return found


def _row(path: Path, name: str, step: int, marks: tuple[str, ...]) -> list[ModelRow]:
    with suppress(OSError, ValueError, AttributeError):
        meta = files.read_json(path / META)
        scores = meta.get("val") or {}
        chat = "<end_turn>" in meta.get("special_tokens", {})
        size = files.folder_bytes(path)
        told = step or int(meta.get("step", 0))
        return [
            ModelRow(
                path, name, told, _score(scores.get("val/loss")), _score(scores.get("val/bpb")), size, marks, chat
            )
        ]
    return []
