"""A sweep that is started again does what is left, whether it was stopped, extended, or is a search of Optuna."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import checkpoints_in
from microgpt.runs.folder import read_metrics, read_run
from waiting import until

pytestmark = pytest.mark.slow

PLACE = "hydra.sweep.dir=outputs/it"


def trial(home: Path, number: int) -> Path:
    return home / "outputs" / "it" / str(number)


def test_a_stopped_sweep_goes_on_in_place_and_skips_what_is_done(
    warm: Any, warm_anywhere: Any, small: list[str], tmp_path: Path
) -> None:
    words = [*small, "trainer.max_steps=600", "trainer.eval_interval=50", "trainer.eval_batches=2", PLACE]
    axis = "seed=1,2"
    child = subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", "-m", *words, axis, "tracking=off"],
        cwd=tmp_path, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: checkpoints_in(trial(tmp_path, 0) / "checkpoints") or child.poll() is not None)
    child.send_signal(signal.SIGTERM)
    said = child.communicate(timeout=120)[1]
    assert child.returncode == 143, said
    assert "Traceback" not in said
    assert read_run(trial(tmp_path, 0))["status"] == "KILLED"
    assert not (trial(tmp_path, 1) / "run.json").exists(), "no trial begins after the signal"
    assert "0 of 2 trials done - go on with python -m microgpt.train -m" in said

    done = warm("train", "-m", *words, axis)
    assert {n: read_run(trial(tmp_path, n))["status"] for n in (0, 1)} == {0: "FINISHED", 1: "FINISHED"}
    assert "resumed" in read_run(trial(tmp_path, 0)), "it has gone on from its checkpoint"
    assert "2 trials, best first" in done.stderr
    assert "next             python -m microgpt.compare runs=outputs/it" in done.stderr

    warm("train", *[w for w in words if w != PLACE], "seed=1", "hydra.run.dir=whole")
    whole, resumed = (read_metrics(run)["train/loss"] for run in (tmp_path / "whole", trial(tmp_path, 0)))
    assert resumed == whole, "interrupted or not, the losses are the same to the bit"

    ended = [read_run(trial(tmp_path, n))["ended"] for n in (0, 1)]
    again = warm("train", "-m", *words, "seed=3,2,1", "trainer.max_steps=600")
    assert "trials done already: 2 of 3" in again.stderr
    assert [read_run(trial(tmp_path, n))["ended"] for n in (0, 1)] == ended
    assert json.loads((trial(tmp_path, 2) / "trial.json").read_text())["swept"] == ["seed=3"]

    other = warm("train", "-m", *words, axis, "sweep=optuna", code=2)
    assert len([line for line in other.stderr.splitlines() if line.startswith("error: ")]) == 1
    assert "holds another sweep" in other.stderr


#: with this seed the random sampler draws 0.02, then 1e-07, then 0.02
SEARCH = ["sweep=optuna", "sweep.sampler=random", "sweep.seed=2", "sweep.startup_trials=1", PLACE]
SPACE = "optimizer.learning_rate=choice(0.02,1e-07)"


def test_optuna_prunes_what_falls_behind_and_a_second_start_goes_on_with_the_study(
    warm: Any, small: list[str], tmp_path: Path
) -> None:
    import optuna

    words = ["-m", *small, "optimizer=adamw", *SEARCH, SPACE]
    first = warm("train", *words, "sweep.trials=2")
    good, bad = (read_run(trial(tmp_path, n)) for n in (0, 1))
    assert (good["swept"], good["status"]) == (["optimizer.learning_rate=0.02"], "FINISHED")
    assert (bad["swept"], bad["status"]) == (["optimizer.learning_rate=1e-07"], "PRUNED")
    assert bad["steps"] < good["steps"] == 40
    assert checkpoints_in(trial(tmp_path, 1) / "checkpoints"), "a pruned trial is a whole run, only short"
    assert "PRUNED" in first.stderr

    warm("train", *words, "sweep.trials=3")
    study = optuna.load_study(study_name="sweep", storage=f"sqlite:///{tmp_path}/outputs/it/study.db")
    assert [t.state.name for t in study.trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    assert [t.value for t in study.trials if t.state.name == "COMPLETE"] == [
        read_run(trial(tmp_path, n))["best_val_loss"] for n in (0, 2)
    ]
    assert sorted(study.trials[1].intermediate_values) == [10]
    assert read_run(trial(tmp_path, 0))["ended"] == good["ended"]

    refused = warm("train", *words[:-1], "optimizer.learning_rate=choice(0.02,0.03)", "sweep.trials=3", code=2)
    assert "holds another sweep" in refused.stderr

    warm("train", "resume=outputs/it/1")
    assert read_run(trial(tmp_path, 1))["status"] == "FINISHED", "whoever wants it trained to its end can have it"


@pytest.mark.parametrize(
    "words, part",
    [
        (["sweep=optuna", "seed=1"], "nothing is swept over"),
        (["sweep=optuna", "optimizer.learning_rate=interval(1e-3,20)"], "must be a number from above 0 to 10"),
        (["sweep=optuna", "model.mlp=interval(1,2)"], "needs a setting that is a number"),
        (["sweep=optuna", "optimizer.learning_rate=tag(log,interval(0,1))"], "optimizer.learning_rate"),
        (["sweep=optuna", "sweep.trials=0", "seed=1,2"], "sweep.trials=0: must be a whole number from 1"),
        (["sweep=optuna", "sweep.pruner=medium", "seed=1,2"], "did you mean median?"),
        (["optimizer.learning_rate=interval(1e-3,1e-2)"], "an interval needs sweep=optuna"),
        (["sweep=optnua", "seed=1,2"], "did you mean optuna?"),
        (["hydra/sweeper=basic", "seed=1,2"], "chosen by sweep="),
        (["hydra/launcher=joblib", "hydra.launcher.n_jobs=many", "seed=1,2"], "n_jobs"),
    ],
)
def test_a_mistake_in_a_sweep_is_one_line_and_makes_nothing(
    warm: Any, small: list[str], tmp_path: Path, words: list[str], part: str
) -> None:
    done = warm("train", "-m", *small, *words, code=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert part in line
    assert list(tmp_path.iterdir()) == []
