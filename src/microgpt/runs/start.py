"""Where a run starts: afresh, from a checkpoint of its own (`resume=`), or from another's record (`from_run=`)."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgpt import runtime
from microgpt.checkpoints.folder import checkpoints_in, find
from microgpt.config.build import build, flat, plain
from microgpt.config.compose import migrated, overlaid
from microgpt.config.main import run_folder
from microgpt.config.schema import TrainConfig
from microgpt.errors import ModelError
from microgpt.runs.find import Run, all_runs, find_run
from microgpt.runs.folder import FINISHED, PRUNED, RUN, read_config


@dataclass(frozen=True)
class Start:
    """Where a run starts from.

    Attributes:
        config: what the user wants, laid over a saved config where there is one.
        folder: the run folder.
        checkpoint: one to go on from, or None.
        source: the run that is resumed or repeated, or None.
    """

    config: TrainConfig
    folder: Path
    checkpoint: Path | None
    source: Run | None

    def to_json(self) -> dict[str, Any]:
        """For another process of the same run."""
        return {
            "config": plain(self.config),
            "folder": str(self.folder),
            "checkpoint": None if self.checkpoint is None else str(self.checkpoint),
            "source": None if self.source is None else str(self.source.path),
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Start:
        """What `to_json` gave, in a process that shares the folders."""
        checkpoint, source = said["checkpoint"], said["source"]
        return cls(
            build(TrainConfig, said["config"]),
            Path(said["folder"]),
            None if checkpoint is None else Path(checkpoint),
            None if source is None else find_run(source),
        )


def started(config: TrainConfig, overrides: list[str], folder: Path) -> Start:
    """Resolve `resume=` and `from_run=`.

    Raises:
        ModelError: there is nothing to resume, or it has another model or data.
    """
    if config.from_run:
        source = find_run(config.from_run)
        again = overlaid(read_config(source.path), overrides, config)
        again.resume, again.from_run, again.trainer.additional_steps = "", config.from_run, 0
        return Start(again, folder, None, source)
    if not config.resume:
        return Start(config, folder, None, None)
    reference = config.resume
    if reference == "auto":
        placed = folder != Path()  # by hydra.run.dir=
        found = unfinished(config.name, folder if placed else None)
        if found is None:
            print("note: resume=auto found no unfinished run; starting a fresh one", file=sys.stderr)
            if not placed:
                stamp = runtime.now_iso()[:19].replace("T", "/").replace(":", "-")
                folder = Path(run_folder(stamp, config.name, "", "", config.data.corpus, config.data.path, ""))
            return Start(config, folder, None, None)
        reference = str(found.path)
    chosen = Path(reference)
    source = find_run(str(chosen.parent.parent) if chosen.parent.name == "checkpoints" else reference)
    checkpoint = chosen if chosen.parent.name == "checkpoints" else find(source.path / "checkpoints", "latest")
    saved = read_config(source.path)
    merged = overlaid(saved, overrides, config)
    refuse_changes(saved, merged)
    if not checkpoints_in(source.path / "checkpoints"):
        raise ModelError(f"{source.path} has no checkpoint to resume from", "start it again with from_run=")
    return Start(merged, source.path, checkpoint, source)


def unfinished(name: str, folder: Path | None) -> Run | None:
    """The newest run that has a checkpoint and did not end.

    Args:
        name: where given, only a run of this name, so that jobs beside each other keep to their own.
        folder: where given, only the run in it.
    """
    runs = all_runs() if folder is None else [find_run(str(folder))] if (folder / RUN).exists() else []
    runs = [r for r in runs if checkpoints_in(r.path / "checkpoints") and r.status not in (FINISHED, PRUNED)]
    return next((r for r in reversed(runs) if name in ("", r.facts.get("name"))), None)


def refuse_changes(saved: dict[str, Any], config: TrainConfig) -> None:
    """A resumed run must keep its model, vocabulary, data and optimizer.

    Raises:
        ModelError: listing every key that differs.
    """
    before, after = flat(build(TrainConfig, migrated(saved))), flat(config)
    fixed = ("model.", "data.", "tokenizer.", "optimizer.", "seed", "trainer.accumulate", "trainer.max_steps")
    # what the files hold is compared by content later, so they may have moved
    free = ("data.workers", "data.tokenize_workers", "data.path", "data.corpus")
    changed = [k for k in before if k.startswith(fixed) and k not in free and before[k] != after[k]]
    if changed:
        listed = ", ".join(f"{k} ({before[k]} became {after[k]})" for k in changed)
        raise ModelError(
            f"the run cannot be resumed with other settings: {listed}",
            "leave them out, extend the run with trainer.additional_steps=, or start a new one with from_run=",
        )
