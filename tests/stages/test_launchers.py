"""Trials in other processes: by joblib, submitit and Ray, one MLflow parent above them, and none ends the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from microgpt.runs.folder import read_run
from waiting import until

pytestmark = pytest.mark.slow

ELSEWHERE = {
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": ["hydra.launcher.timeout_min=10"],
    "ray": ["hydra.launcher.num_cpus=2"],
}
PLACE = "hydra.sweep.dir=outputs/it"
SHORT = ["trainer.max_steps=20", PLACE]
#: diverges with the large rate and the large decay, and with no other two
REST = [
    *("optimizer=adamw", "optimizer.grad_clip=0", "optimizer.schedule=constant", "optimizer.warmup_steps=0"),
    *("model.norm=layernorm", "optimizer.weight_decay=10", "optimizer.learning_rate=0.01,10"),
]


def pids(home: Path) -> set[int]:
    return {int(read_run(path.parent)["pid"]) for path in home.glob("outputs/it/*/run.json")}


def test_joblib_trains_two_at_a_time_below_one_parent_on_a_fresh_store(
    warm_anywhere: Any, small: list[str], tmp_path: Path
) -> None:
    from mlflow import MlflowClient

    words = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = warm_anywhere("train", "-m", *small, *SHORT, *REST, *words, cwd=tmp_path, code=6)
    found = {n: read_run(tmp_path / "outputs" / "it" / str(n)) for n in (0, 1)}
    assert {n: facts["status"] for n, facts in found.items()} == {0: "FINISHED", 1: "FAILED"}
    assert "1 trial of the sweep failed" in done.stderr
    assert "run folder" not in done.stderr.partition("trials, best first")[0], "workers' tables are not mixed"
    assert "trial 0 (optimizer.learning_rate=0.01): FINISHED, validation loss" in done.stderr
    client = MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    runs: list[Any] = client.search_runs([client.get_experiment_by_name("microgpt").experiment_id])
    (parent,) = [r for r in runs if r.data.tags.get("microgpt.kind") == "sweep"]
    trials = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert sorted(t.info.status for t in trials) == ["FAILED", "FINISHED"]
    assert len({t.info.run_name for t in trials}) == 2
    assert parent.info.status == "FAILED"

    # again: the one that failed is tried again, below the same parent
    warm_anywhere("train", "-m", *small, *SHORT, *REST, *words, cwd=tmp_path, code=6)
    runs = client.search_runs([client.get_experiment_by_name("microgpt").experiment_id])
    assert len(runs) == 3
    assert read_run(tmp_path / "outputs" / "it" / "0")["ended"] == found[0]["ended"]


@pytest.mark.parametrize(
    "words",
    [["hydra/launcher=submitit_local"], ["hydra/launcher=ray", "hydra.launcher.num_cpus=2"]],
    ids=lambda words: words[0],
)
def test_submitit_and_ray_run_each_trial_in_a_process_of_its_own(
    warm: Any, small: list[str], tmp_path: Path, words: list[str]
) -> None:
    done = warm("train", "-m", *small, *SHORT, *words, "seed=1,2")
    folders = sorted(p.parent for p in tmp_path.glob("outputs/it/*/run.json"))
    assert [read_run(f)["status"] for f in folders] == ["FINISHED", "FINISHED"]
    assert len(pids(tmp_path)) == 2
    assert [json.loads((f / "trial.json").read_text())["swept"] for f in folders] == [["seed=1"], ["seed=2"]]
    assert "2 trials, best first" in done.stderr
    assert not (tmp_path / "outputs" / "it" / ".submitit").exists(), "what was exchanged with workers is gone"


@pytest.mark.parametrize("seconds", [0.0, 0.4, 0.8])
def test_ctrl_c_while_workers_begin_is_no_fault(small: list[str], tmp_path: Path, seconds: float) -> None:
    words = [*small, PLACE, "trainer.max_steps=20000", "trainer.eval_interval=20000", "tracking=off"]
    words += ["hydra/launcher=joblib", *ELSEWHERE["joblib"], "seed=1,2,3"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", "-m", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: sweep.poll() is not None or any(tmp_path.glob("outputs/it/*/trial.json")))
    time.sleep(seconds)
    os.killpg(sweep.pid, signal.SIGINT)
    said, _ = sweep.communicate(timeout=180)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert "error" not in said
    assert "stopped: the sweep, by SIGINT, with 0 of 3 trials done" in said
    assert {read_run(path.parent)["status"] for path in tmp_path.glob("outputs/it/*/run.json")} <= {"KILLED"}


@pytest.mark.parametrize("launcher", ELSEWHERE)
def test_ctrl_c_saves_the_trials_at_work_and_leaves_no_process(
    small: list[str], tmp_path: Path, launcher: str
) -> None:
    words = [*small, PLACE, "trainer.max_steps=20000", "trainer.eval_interval=20000", "tracking=off"]
    words += [f"hydra/launcher={launcher}", *ELSEWHERE[launcher], "seed=1,2,3"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", "-m", *words],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    until(lambda: sweep.poll() is not None or any(tmp_path.glob("outputs/it/*/metrics.jsonl")))
    os.killpg(sweep.pid, signal.SIGINT)  # as a terminal does: to all processes in the foreground
    said, _ = sweep.communicate(timeout=180)
    assert sweep.returncode == 130, said
    assert "Traceback" not in said
    assert "stopped: the sweep, by SIGINT, with 0 of 3 trials done" in said
    ended = [read_run(path.parent) for path in tmp_path.glob("outputs/it/*/run.json")]
    assert ended
    assert [run["error"] for run in ended if run["status"] != "KILLED"] == []
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids(tmp_path)))
