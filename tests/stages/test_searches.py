"""What a run finds out before it begins is what it is then trained with, and the search leaves no other trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from microgpt.checkpoints.folder import find
from microgpt.runs.folder import read_metrics, read_run

pytestmark = pytest.mark.slow

CLOCKS = ("perf/", "progress/eta")
#: dropout draws random numbers, and the tokenizer's text is read anew: a search that took any would be seen
SEARCHED = ["data.batch_size=2", "trainer.accumulate=3", "model.dropout=0.1", "trainer.max_steps=12"]
SEARCHES = ["trainer.find_lr=true", "trainer.find_batch_size=true"]


@pytest.fixture(scope="module")
def runs(
    warm_anywhere: Any, small: list[str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str, list[str]]:
    """`searched`, what it said, and the keys that it found, with which `given` was started."""
    home = tmp_path_factory.mktemp("searches")
    words = [*small, *SEARCHED, "tracking=off"]
    said = warm_anywhere("train", *words, *SEARCHES, "hydra.run.dir=searched", cwd=home).stderr
    found = [line.partition(" found: ")[2] for line in said.splitlines() if " found: " in line]
    keys = " ".join(found).split()
    warm_anywhere("train", *words, *keys, "hydra.run.dir=given", cwd=home)
    return home, said, keys


def assert_same_run(a: Path, b: Path) -> None:
    last = find(a / "checkpoints", "latest").name
    for name in ("weights.safetensors", "optimizer.safetensors"):
        left, right = ((run / "checkpoints" / last / name).read_bytes() for run in (a, b))
        assert left == right, f"{name} differs"
    left_metrics, right_metrics = read_metrics(a), read_metrics(b)
    assert {k for k in left_metrics if not k.startswith("perf/")} == {
        k for k in right_metrics if not k.startswith("perf/")
    }
    for key in left_metrics:
        if not key.startswith(CLOCKS):
            assert left_metrics[key] == right_metrics[key], key
    assert read_run(a)["best_val_loss"] == read_run(b)["best_val_loss"]


def test_a_run_that_searched_has_the_bits_of_one_that_was_given_the_values(runs: tuple[Path, str, list[str]]) -> None:
    home, _, keys = runs
    assert {k.partition("=")[0] for k in keys} == {
        *("data.batch_size", "trainer.accumulate"),
        *("optimizer.learning_rate", "optimizer.muon_learning_rate"),
    }
    assert_same_run(home / "searched", home / "given")
    searched, given = ((home / name / "config.yaml").read_text() for name in ("searched", "given"))
    assert searched == given


def test_what_was_found_is_written_down_and_shown(runs: tuple[Path, str, list[str]]) -> None:
    home, said, keys = runs
    rates = json.loads((home / "searched" / "find_lr.json").read_text())
    batch = json.loads((home / "searched" / "find_batch_size.json").read_text())
    saved = yaml.safe_load((home / "searched" / "config.yaml").read_text())
    assert saved["optimizer"]["learning_rate"] == rates["found"]["learning_rate"]
    assert saved["optimizer"]["muon_learning_rate"] == rates["found"]["muon_learning_rate"]
    assert saved["data"]["batch_size"] * saved["trainer"]["accumulate"] == 6, "the rows of a step stay"
    assert batch["found"] == {k: saved[k.split(".")[0]][k.split(".")[1]] for k in batch["found"]}
    assert max(batch["tried"], key=lambda t: t["tokens_per_s"])["batch_size"] == batch["found"]["data.batch_size"]
    assert not saved["trainer"]["find_lr"]
    assert not saved["trainer"]["find_batch_size"]
    losses = [p["smoothed"] for p in rates["points"]]
    lowest = rates["points"][losses.index(min(losses))]
    assert rates["factor"] == pytest.approx(lowest["factor"] / 4)
    assert losses[0] > min(losses) + 0.2, "the model learned in the test"
    assert (home / "searched" / "find_lr.png").read_bytes().startswith(b"\x89PNG")
    assert said.count("<- chosen") == 2
    assert f"optimizer.learning_rate={rates['found']['learning_rate']}" in keys


def test_a_run_made_again_or_resumed_searches_nothing(
    runs: tuple[Path, str, list[str]], warm_anywhere: Any, tmp_path: Path
) -> None:
    home, _, _ = runs
    again = ["from_run=searched", f"hydra.run.dir={tmp_path / 'again'}", "tracking=off"]
    assert " found: " not in warm_anywhere("train", *again, cwd=home).stderr
    assert_same_run(home / "searched", tmp_path / "again")
    more = ["resume=given", "trainer.find_lr=true", "trainer.additional_steps=2", "tracking=off"]
    said = warm_anywhere("train", *more, cwd=home).stderr
    assert "a resumed run keeps its batch size and learning rates" in said
    assert " found: " not in said
    assert not (home / "given" / "find_lr.json").exists()
