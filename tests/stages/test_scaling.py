"""A scaling study says what the larger model will reach before it starts, and trains nothing twice."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from microgpt.runs.folder import read_metrics, read_run

pytestmark = pytest.mark.slow

WORDS = [
    *("-m", "sweep=scaling", "data=names", "tokenizer=char", "model.block_size=16", "data.batch_size=4"),
    *("sampling.num_samples=1", "sampling.max_new_tokens=4", "trainer.eval_batches=8", "device.threads=1"),
    *("sweep.depths=[1]", "sweep.budgets=[3e8,6e8,1.2e9]", "sweep.target_depth=2", "sweep.target_budget=3e9"),
    *("tracking=off", "hydra.sweep.dir=study"),
]


@pytest.fixture(scope="module")
def study(warm_anywhere: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a study, and what it said."""
    home = tmp_path_factory.mktemp("scaling")
    return home / "study", warm_anywhere("train", *WORDS, cwd=home).stderr


def read(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / name).read_text())


def test_the_prediction_is_on_the_disk_before_the_larger_run_starts(study: tuple[Path, str]) -> None:
    folder, said = study
    told, result = read(folder, "prediction.json"), read(folder, "scaling_result.json")
    larger = folder / f"depth2-steps{told['larger']['steps']}"
    assert told["written"] <= read_run(larger)["started"]
    assert (folder / "prediction.json").stat().st_mtime_ns < (larger / "metrics.jsonl").stat().st_mtime_ns
    assert "predicted_loss" in told
    assert "measured" not in json.dumps(told)
    assert said.index("predicted  ") < said.index("off by")
    assert result["predicted_loss"] == told["predicted_loss"]
    assert result["measured_loss"] == read_run(larger)["best_val_loss"]
    assert result["error"] == pytest.approx(result["predicted_loss"] - result["measured_loss"])
    assert (folder / "scaling.png").read_bytes().startswith(b"\x89PNG")


def test_each_run_spends_its_budget_with_the_model_of_its_depth(study: tuple[Path, str]) -> None:
    folder, _ = study
    result = read(folder, "scaling_result.json")
    assert [r["budget"] for r in result["runs"]] == [3e8, 6e8, 1.2e9]
    for run in [*result["runs"], result["larger"]]:
        facts = read_run(folder / f"depth{run['depth']}-steps{run['steps']}")
        assert facts["status"] == "FINISHED"
        assert facts["parameters"] == run["parameters"]
        assert run["compute"] == facts["flops_per_token"] * 4 * 16 * facts["steps"]
        assert run["compute"] == pytest.approx(run["budget"], rel=0.25)
    assert result["larger"]["parameters"] > result["runs"][0]["parameters"]


def test_started_again_it_trains_only_what_is_missing(study: tuple[Path, str], warm_anywhere: Any) -> None:
    folder, _ = study
    told = (folder / "prediction.json").read_text()
    runs = read(folder, "scaling_result.json")["runs"]
    lost, kept = (folder / f"depth{r['depth']}-steps{r['steps']}" for r in runs[:2])
    before = read_metrics(kept), (kept / "metrics.jsonl").stat().st_mtime_ns
    losses = read_metrics(lost)["train/loss"]
    shutil.rmtree(lost)
    said = warm_anywhere("train", *WORDS, cwd=folder.parent).stderr
    assert said.count("is done already") == 3
    assert (read_metrics(kept), (kept / "metrics.jsonl").stat().st_mtime_ns) == before
    assert read_metrics(lost)["train/loss"] == losses
    assert (folder / "prediction.json").read_text() == told, "what was foretold is not changed afterwards"
    other = [w for w in WORDS if not w.startswith("data.batch_size")]
    assert "holds another study" in warm_anywhere("train", *other, cwd=folder.parent, code=2).stderr


@pytest.mark.parametrize(
    "words, told",
    [
        (["sweep.budgets=[1e9,2e9]"], "a law of three unknowns needs 3"),
        (["sweep.depths=[one]"], "sweep.depths=[one]: must be numbers"),
        (["model.n_layer=3"], "a scaling study sets these itself"),
    ],
)
def test_what_cannot_be_studied_is_refused(warm_anywhere: Any, tmp_path: Path, words: list[str], told: str) -> None:
    keys = {w.partition("=")[0] for w in words}
    rest = [w for w in WORDS if w.partition("=")[0] not in keys]
    said = warm_anywhere("train", *rest, *words, cwd=tmp_path, code=2).stderr
    assert told in said
    assert said.count("error: ") == 1
