"""Evaluate scores a run as training did, the same each time, beside baselines and other runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from microgpt.runs.folder import read_metrics, read_run

pytestmark = pytest.mark.slow
QUICK = ["tracking=off", "device=cpu", "device.threads=1", "sampling.num_samples=2", "sampling.max_new_tokens=8"]


def evaluation(run: Path) -> dict[str, Any]:
    return json.loads((run / "evaluation.json").read_text())


def test_the_score_is_deterministic_and_equal_to_the_validation_of_training(warm_anywhere, trained: Path) -> None:
    run = trained / "outputs" / "one"
    warm_anywhere("evaluate", "run=outputs/one", *QUICK, cwd=trained)
    first = evaluation(run)
    warm_anywhere("evaluate", "run=outputs/one", "batch_tokens=999", *QUICK, cwd=trained)
    second = evaluation(run)
    assert first["samples"] == second["samples"]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-6), "the size of a batch is no part of the score"
    step = read_run(run)["best_step"]
    metrics = read_metrics(run)
    assert first["loss"] == pytest.approx(metrics["val/loss"][step], rel=1e-6)
    assert first["bits_per_byte"] == pytest.approx(metrics["val/bpb"][step], rel=1e-6)
    warm_anywhere("evaluate", "run=outputs/one", "batch_tokens=999", *QUICK, cwd=trained)
    assert evaluation(run) == second, "equal to the last bit"


def test_several_runs_are_compared_lowest_bits_a_byte_first(warm_anywhere, trained: Path) -> None:
    done = warm_anywhere("evaluate", "run=[outputs/one,outputs/two]", *QUICK, cwd=trained, env={"COLUMNS": "200"})
    one, two = (evaluation(trained / "outputs" / n) for n in ("one", "two"))
    assert two["bits_per_byte"] < one["bits_per_byte"]
    table = done.stderr
    assert (
        0 < table.index("outputs/two") < table.index("outputs/one") < table.index("bigram") < table.index("unigram")
    )


def test_baselines_and_losses_by_position_stand_beside_the_score(warm_anywhere, trained: Path) -> None:
    warm_anywhere("evaluate", "run=latest", *QUICK, cwd=trained)
    found = evaluation(trained / "outputs" / "two")
    assert found["bigram_loss"] < found["unigram_loss"] < 3.3
    assert found["bigram_bits_per_byte"] < found["unigram_bits_per_byte"]
    assert found["perplexity"] == pytest.approx(2.718281828459045 ** found["loss"])
    assert len(found["position_loss"]) == 32
    assert (trained / "outputs" / "two" / "position_loss.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_that_is_not_there_is_one_line_naming_some_that_are(warm_anywhere, trained: Path) -> None:
    done = warm_anywhere("evaluate", "run=nothing", *QUICK, cwd=trained, code=4)
    (line,) = done.stderr.strip().splitlines()
    assert "outputs/two" in line


def test_changed_data_is_refused_because_scores_would_not_compare(warm, small: list[str], tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("".join(f"line {i} of the text\n" for i in range(200)))
    words = [w for w in small if w != "data=names"]
    warm("train", *words, "data.path=data.txt", "trainer.max_steps=2", "hydra.run.dir=run")
    (tmp_path / "data.txt").write_text("".join(f"line {i} of another text\n" for i in range(200)))
    done = warm("evaluate", "run=run", *QUICK, code=3)
    assert "changed" in done.stderr.splitlines()[-1]
