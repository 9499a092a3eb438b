"""A session's run folder: what it learns is a run like any other, for `microgpt runs`, MLflow and export."""

from __future__ import annotations

import json
import math
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from microgpt import files, runtime
from microgpt.checkpoints.folder import point, step_name, write_folder
from microgpt.checkpoints.model import model_files
from microgpt.config.build import plain
from microgpt.config.schema import TrackingConfig
from microgpt.lab.learner import Learner
from microgpt.runs.find import OUTPUTS
from microgpt.runs.folder import FINISHED, KILLED, METRICS, SAMPLES, RunFolder, finite, provenance
from microgpt.tracking.start import start_feeder

STATES = "lab"


def new_folder(session_id: str) -> Path:
    """Where the run of a session goes."""
    day, _, clock = runtime.now_iso()[:19].partition("T")
    return OUTPUTS / day / f"{clock.replace(':', '-')}-lab-{session_id[:8]}"


class Record:
    """Writes a session's run folder.

    Args:
        path: the folder.
        learner: what is trained.
        name: of the session.
        parent: facts about the session that it was forked from.
        tracking: where the run goes to at its end; kind `off` sends nothing.
    """

    def __init__(
        self, path: Path, learner: Learner, name: str, parent: dict[str, Any] | None, tracking: TrackingConfig
    ) -> None:
        self.folder = RunFolder(path)
        self.learner, self.tracking = learner, tracking
        self._lock: files.FolderLock | None = files.FolderLock(path)
        self._lines: list[str] = []
        self._now = runtime.now_iso()  # told anew at each flush: spelling it out costs a tiny model's step a tenth
        self.best = math.inf
        self.best_step = 0
        self.folder.write_config(plain(learner.config))
        self.folder.update(
            stage="train", status="RUNNING", pid=os.getpid(), started=runtime.now_iso(), name=name or path.name,
            overrides=[], from_run="", lab={"parent": parent, "off": [u.model_dump() for u in learner.off]},
            data=learner.recipe.prepared.facts, device="cpu", precision="f32",
            parameters=learner.model.parameter_count(), flops_per_token=learner.model.flops_per_token(),
            vocab_size=learner.model.vocab_size, max_steps=learner.end, **provenance(), ready=True,
        )  # fmt: skip

    @property
    def states(self) -> Path:
        """Where recorded states go."""
        return self.folder.path / STATES

    def add(self, step: int, loss: float, rate: float, norm: float, tokens: int, val: float | None) -> None:
        """Note the metrics of a step; `flush` writes them."""
        values = {"train/loss": loss, "train/lr": rate, "train/grad_norm": norm, "progress/tokens": float(tokens)}
        if val is not None:
            values |= {"val/loss": val, "val/ppl": math.exp(min(val, 700.0))}
            if val < self.best:
                self.best, self.best_step = val, step
        metrics = {key: finite(value) for key, value in values.items()}
        self._lines.append(json.dumps({"step": step, "time": self._now, "metrics": metrics}))

    def take(self, other: Path, until: int) -> None:
        """Have the metrics of another run up to a step."""
        with suppress(OSError), open(other / METRICS, encoding="utf-8") as file:
            self._lines += [line.rstrip("\n") for line in file if json.loads(line)["step"] <= until]

    def samples(self, step: int, texts: list[str]) -> None:
        """Note samples."""
        self.folder.append(SAMPLES, json.dumps({"step": step, "samples": texts}))

    def flush(self) -> None:
        """Write what was noted.

        Raises:
            DiskError: the disk is full.
        """
        if self._lines:
            self.folder.append(METRICS, "\n".join(self._lines))
            self._lines.clear()
        self._now = runtime.now_iso()

    def end(self) -> None:
        """Close the run: a checkpoint that every verb takes, the final facts, and MLflow. Nothing learned: no run."""
        if self._lock is None:
            return
        learner, path = self.learner, self.folder.path
        if learner.step == 0:
            self.folder.close()
            self._lock.close()
            shutil.rmtree(path, ignore_errors=True)
            self._lock = None
            return
        self.flush()
        checkpoint = self.folder.checkpoints / step_name(learner.step)
        facts = {"name": path.name, "step": learner.step, "tokens": learner.tokens, "val": {}}
        facts |= {"data": learner.recipe.prepared.facts, "sampling": plain(learner.config.sampling)}
        write_folder(checkpoint, model_files(learner.model, learner.recipe.prepared.tokenizer, facts), learner.step)
        for pointer in ("latest", "best"):
            point(self.folder.checkpoints, pointer, checkpoint)
        self.folder.update(
            status=FINISHED if learner.step >= learner.end else KILLED,
            ended=runtime.now_iso(),
            steps=learner.step,
            tokens=learner.tokens,
            best_val_loss=self.best if math.isfinite(self.best) else None,
            best_step=self.best_step,
        )
        self.folder.close()
        self._lock.close()
        self._lock = None
        if self.tracking.kind != "off":
            start_feeder(path, self.tracking)
