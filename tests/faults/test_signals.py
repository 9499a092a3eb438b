"""Signals at the worst moments: inside a save, a validation, an accumulation window, a worker's start (T4, T5)."""

from __future__ import annotations

from pathlib import Path

import pytest
from warm import Warm

from microgpt.checkpoints.folder import checkpoints_in
from microgpt.runs.folder import read_run
from runs import RUN, assert_equal, at_call, log, logged_steps

MOMENTS = {
    "inside a save": ("microgpt.files", "put_in_place", 3),
    "while a save is synced": ("microgpt.files", "fsync_folder", 40),
    "inside a validation": ("microgpt.training.module", "GPTModule.validation_step", 2),
    "between two micro-batches": ("microgpt.training.module", "GPTModule.on_device", 92),
    "at the start of workers": ("microgpt.data.batches", "Ahead.take", 1),
}


#: kills inside saves and steps are many in test_kills.py
KILLED = ("inside a validation", "at the start of workers")


@pytest.mark.parametrize(
    "moment, number, code",
    [*((m, "SIGTERM", 143) for m in MOMENTS), *((m, "SIGKILL", -9) for m in KILLED)],
)
def test_a_run_stopped_at_a_bad_moment_goes_on_to_equal_bits(
    warm: Warm, unbroken: Path, tmp_path: Path, moment: str, number: str, code: int
) -> None:
    words = [*RUN, "data.workers=2"]
    child = warm.start("train", *words, cwd=tmp_path, before=at_call(*MOMENTS[moment], number))
    assert child.wait() == code, child.said
    run = tmp_path / "run"
    if number == "SIGTERM":
        assert read_run(run)["status"] == "KILLED"
        assert checkpoints_in(run / "checkpoints")[-1][0] >= max(logged_steps(run)), "a signal loses no step"
    if checkpoints_in(run / "checkpoints"):
        warm.run("train", "resume=run", cwd=tmp_path)
    else:
        assert moment == "at the start of workers"
        warm.run("train", *RUN, f"hydra.run.dir={run.name}2", cwd=tmp_path)
        run = tmp_path / "run2"
    assert_equal(unbroken, run)


@pytest.mark.parametrize("moment", ["between two micro-batches", "inside a save", "inside a validation"])
def test_sigusr1_saves_and_training_goes_on(warm: Warm, unbroken: Path, tmp_path: Path, moment: str) -> None:
    words = [*RUN, "trainer.keep_checkpoints=100", "trainer.checkpoint_interval=20"]
    warm.run("train", *words, cwd=tmp_path, before=at_call(*MOMENTS[moment], "SIGUSR1"))
    run = tmp_path / "run"
    (asked,) = [line for line in log(run).splitlines() if "as SIGUSR1 asked" in line]
    steps = [step for step, _ in checkpoints_in(run / "checkpoints")]
    assert asked.split()[3].rstrip(",") in [f"step-{step:06d}" for step in steps]
    assert read_run(run)["status"] == "FINISHED"
    if moment == "between two micro-batches":
        (extra,) = sorted({*steps} - {*range(20, 121, 20)})  # what was asked for, beside the ordinary ones
        assert len(steps) == 7
        warm.run("train", f"resume={run / 'checkpoints' / f'step-{extra:06d}'}", cwd=tmp_path)
    assert_equal(unbroken, run)
