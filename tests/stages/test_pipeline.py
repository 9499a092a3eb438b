"""A pipeline runs the stages of its recipe under one MLflow run, and none twice for the same inputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow
RECIPE = """
stages:
  - stage: validate
    overrides: [data.path=data.txt, data.document=line, tokenizer=char]
  - stage: train
    overrides: [data.path=data.txt, data.document=line, tokenizer=char, model.n_layer=1, model.n_embd=16,
      model.block_size=32, data.batch_size=4, trainer.max_steps=4, sampling.num_samples=1, device=cpu]
  - stage: evaluate
    overrides: [device=cpu, sampling.num_samples=1]
  - stage: export
    overrides: [dtype=f16]
"""
CHECK = "stages:\n  - stage: validate\n    overrides: [data.path=data.txt, data.document=line, tokenizer=char]\n"
CHANGED = "override=['data.val_fraction=0.2']"
STAGES = ["validate", "train", "evaluate", "export"]


def write_data(folder: Path, word: str = "text") -> None:
    (folder / "data.txt").write_text("".join(f"the {i}th line of this {word}, {i * i} in all\n" for i in range(150)))


def skipped(said: str) -> list[str]:
    return [line.partition(":")[0] for line in said.splitlines() if ": skipped, its inputs have not changed" in line]


@pytest.fixture(scope="module")
def home(warm_anywhere, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the whole pipeline has run once, tracked."""
    home = tmp_path_factory.mktemp("pipeline")
    write_data(home)
    (home / "recipe.yaml").write_text(RECIPE)
    done = warm_anywhere("pipeline", "recipe=recipe.yaml", cwd=home)
    (home / "said.txt").write_text(done.stderr)
    return home


def test_the_stages_run_in_order_and_leave_their_outputs(home: Path) -> None:
    said = (home / "said.txt").read_text()
    assert skipped(said) == []
    places = [said.index(f"$ python -m microgpt.{stage}") for stage in STAGES]
    assert places == sorted(places)
    state = json.loads((home / "outputs" / "pipelines" / "recipe" / "state.json").read_text())
    assert list(state) == STAGES
    for stage, leaves in zip(STAGES, ("report.json", "checkpoints/best", "evaluation.json", "weights.safetensors")):
        assert (home / state[stage]["output"] / leaves).exists(), stage
        assert state[stage]["inputs"]["config"], "what went in is recorded"
    assert state["validate"]["inputs"]["data"] == state["train"]["inputs"]["data"]
    assert state["export"]["inputs"]["run"] == state["train"]["output"]


def test_all_stand_under_one_mlflow_run_that_has_finished(home: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    runs: list[Any] = client.search_runs([client.get_experiment_by_name("microgpt").experiment_id])
    (parent,) = [r for r in runs if r.data.tags.get("microgpt.kind") == "pipeline"]
    assert parent.info.status == "FINISHED"
    children = [r for r in runs if r.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == 2, "validate and train; evaluate and export log to the run of train"
    trained = next(r for r in children if "train/loss" in r.data.metrics)
    assert trained.data.metrics["eval/loss"] > 0
    assert "export/safetensors_f16_max_difference" in trained.data.metrics
    assert {r.info.status for r in children} == {"FINISHED"}
    assert "state.json" in [a.path for a in client.list_artifacts(parent.info.run_id)]


def test_a_second_run_skips_every_stage_and_says_so(warm_anywhere, home: Path) -> None:
    done = warm_anywhere("pipeline", "recipe=recipe.yaml", cwd=home)
    assert skipped(done.stderr) == STAGES
    assert "$ python" not in done.stderr


def test_a_lost_output_is_made_again(warm_anywhere, home: Path) -> None:
    state = json.loads((home / "outputs" / "pipelines" / "recipe" / "state.json").read_text())
    (home / state["export"]["output"] / "weights.safetensors").unlink()
    done = warm_anywhere("pipeline", "recipe=recipe.yaml", "tracking=off", cwd=home)
    assert skipped(done.stderr) == STAGES[:3]
    assert (home / state["export"]["output"] / "weights.safetensors").exists()


def test_a_stage_runs_again_on_changed_data_changed_overrides_and_force(warm, tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "check.yaml").write_text(CHECK)
    assert skipped(warm("pipeline", "recipe=check.yaml").stderr) == []
    assert skipped(warm("pipeline", "recipe=check.yaml").stderr) == ["validate"]
    write_data(tmp_path, "other")
    assert skipped(warm("pipeline", "recipe=check.yaml").stderr) == []
    assert skipped(warm("pipeline", "recipe=check.yaml", CHANGED).stderr) == []
    assert skipped(warm("pipeline", "recipe=check.yaml", CHANGED).stderr) == ["validate"]
    assert skipped(warm("pipeline", "recipe=check.yaml", CHANGED, "force=true").stderr) == []


def test_the_exit_code_of_a_stage_is_the_pipelines_and_what_follows_does_not_run(warm, tmp_path: Path) -> None:
    write_data(tmp_path)
    with open(tmp_path / "data.txt", "ab") as file:
        file.write(b"bad \xff\xfe\n")
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    done = warm("pipeline", "recipe=recipe.yaml", code=3)
    assert "$ python -m microgpt.train" not in done.stderr
    assert "the stage validate failed" in done.stderr
    assert "unexpected" not in done.stderr


@pytest.mark.parametrize(
    "content, word",
    [
        ("stages:\n  - stage: validat\n", "validate"),
        ("stages:\n  - stage: train\n    overrides: [model.n_hed=4]\n", "n_head"),
        ("steps: []\n", "stages"),
        ("stages:\n  - stage: train\n    overrides: [model._target_=os.system]\n", "_target_"),
    ],
)
def test_a_mistaken_recipe_is_refused_before_anything_runs(warm, tmp_path: Path, content: str, word: str) -> None:
    (tmp_path / "wrong.yaml").write_text(content)
    done = warm("pipeline", "recipe=wrong.yaml", code=2)
    assert word in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "outputs" / "pipelines").exists()


def test_an_unknown_recipe_names_the_nearest(warm) -> None:
    done = warm("pipeline", "recipe=nmaes", code=2)
    assert "names" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_an_export_of_several_formats_is_there_while_each_is_whole(tmp_path: Path) -> None:
    from microgpt.checkpoints.folder import write_folder
    from microgpt.pipeline import is_made

    assert not is_made("export", tmp_path)
    for name in ("gguf", "onnx"):
        write_folder(tmp_path / name, {"model": name.encode()}, 1)
    assert is_made("export", tmp_path)
    (tmp_path / "onnx" / "model").write_bytes(b"oNnx")
    assert not is_made("export", tmp_path)
