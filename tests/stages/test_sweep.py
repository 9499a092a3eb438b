"""A sweep's trials stand under one MLflow run, and one that fails does not end it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microgpt.runs.folder import read_run

pytestmark = pytest.mark.slow

#: of the four, only the trial with both the large rate and the large decay leaves the numbers
AXES = ["optimizer.learning_rate=0.01,10", "optimizer.weight_decay=0,10"]
REST = [
    *("optimizer=adamw", "optimizer.grad_clip=0", "optimizer.schedule=constant", "optimizer.warmup_steps=0"),
    *("model.norm=layernorm", "trainer.max_steps=20"),
]


@pytest.fixture(scope="module")
def sweep(warm_anywhere, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder that a sweep of 2 x 2 was started in, and what it said."""
    home = tmp_path_factory.mktemp("sweep")
    done = warm_anywhere("train", "-m", *small, *REST, *AXES, cwd=home, code=6)
    return home, done.stderr


def test_a_failing_trial_is_reported_and_the_others_are_done(sweep: tuple[Path, str]) -> None:
    home, said = sweep
    folders = sorted(p.parent for p in (home / "outputs").glob("*/*/*/run.json"))
    assert len(folders) == 4
    statuses = {tuple(read_run(f)["overrides"][-2:]): read_run(f)["status"] for f in folders}
    assert statuses.pop(("optimizer.learning_rate=10", "optimizer.weight_decay=10")) == "FAILED"
    assert set(statuses.values()) == {"FINISHED"}
    assert said.count("error: ") == 1
    assert "1 trials of the sweep failed" in said or "1 trial of the sweep failed" in said


def test_all_trials_stand_under_one_parent_in_mlflow(sweep: tuple[Path, str]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{sweep[0]}/mlruns/mlflow.db")
    runs: list[Any] = client.search_runs([client.get_experiment_by_name("microgpt").experiment_id])
    (parent,) = [r for r in runs if r.data.tags.get("microgpt.kind") == "sweep"]
    trials = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(runs) == 5
    assert len(trials) == 4
    assert parent.info.status == "FAILED"
    assert sorted(t.info.status for t in trials) == ["FAILED", "FINISHED", "FINISHED", "FINISHED"]
    settings = {(t.data.params["optimizer.learning_rate"], t.data.params["optimizer.weight_decay"]) for t in trials}
    assert len(settings) == 4
    assert len({t.info.run_name for t in trials}) == 4, "a trial is called by what was swept"


def test_a_mistake_in_one_value_of_a_sweep_is_found_before_any_trial(warm, small: list[str], tmp_path: Path) -> None:
    done = warm("train", "-m", *small, "model.n_head=4,3", "trainer.max_steps=2", code=2)
    assert "n_head" in done.stderr
    assert len(list((tmp_path / "outputs").glob("*/*/*/run.json"))) <= 1


@pytest.mark.parametrize("words, code", [(["model.n_hed=4,8"], 2), (["--help"], 0)])
def test_a_sweep_that_never_starts_makes_no_store(
    warm_anywhere, small: list[str], tmp_path: Path, words: list[str], code: int
) -> None:
    warm_anywhere("train", "-m", *small, *words, cwd=tmp_path, code=code)
    assert list(tmp_path.iterdir()) == []
