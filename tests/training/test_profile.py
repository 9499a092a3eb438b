"""Where the time goes: every second of a training belongs to one phase."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from microgpt.runs.folder import read_metrics
from microgpt.training.profile import PHASES, Phases, phase


def test_inner_work_counts_once_and_the_rest_is_the_loop() -> None:
    phases = Phases("cpu")
    phases.begin()
    time.sleep(0.02)
    with phases.profile("run_training_batch"):  # Lightning's, of no phase
        with phases.profile("forward"):
            time.sleep(0.02)
            with phases.profile("[Callback]Metrics.on_train_batch_end"):
                time.sleep(0.04)
    seconds = phases.end()
    assert set(seconds) == set(PHASES)
    assert seconds["loop"] >= 0.02
    assert seconds["logging"] >= 0.04
    assert 0.02 <= seconds["forward"] < seconds["logging"] + 0.02
    assert seconds["backward"] == 0


def test_work_that_ends_out_of_order_is_still_told_apart() -> None:
    phases = Phases("cpu")
    phases.begin()
    phases.start("[Callback]Metrics.on_validation_start")
    phases.start("evaluation")
    phases.stop("[Callback]Metrics.on_validation_start")
    time.sleep(0.02)
    phases.stop("evaluation")
    phases.stop("never begun")
    assert phases.end()["evaluation"] >= 0.02


def test_nobody_counts_unless_asked() -> None:
    with phase(None, "forward") as nothing:
        assert nothing is None


@pytest.mark.slow
def test_a_profiled_run_has_a_table_a_file_and_metrics_that_add_up(tmp_path: Path) -> None:
    words = ["data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"]
    words += ["data.batch_size=4", "trainer.max_steps=60", "trainer.profile=true", "tracking=off", "device.threads=1"]
    done = subprocess.run(
        [sys.executable, "-m", "microgpt.train", *words, "hydra.run.dir=run"],
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "where the time went" in done.stderr
    with open(tmp_path / "run" / "profile.csv", encoding="utf-8") as file:
        rows = {row["phase"]: (float(row["seconds"]), float(row["percent"])) for row in csv.DictReader(file)}
    assert tuple(rows) == PHASES
    assert sum(percent for _, percent in rows.values()) == pytest.approx(100, abs=0.1)
    assert all(rows[name][0] > 0 for name in PHASES)
    logged = read_metrics(tmp_path / "run")
    shares = {name: logged[f"profile/{name}_pct"][60] for name in PHASES}
    assert shares == {name: pytest.approx(percent, abs=0.01) for name, (_, percent) in rows.items()}
    wall = json.loads((tmp_path / "run" / "run.json").read_text())["wall_seconds"]
    spent = sum(seconds for seconds, _ in rows.values())
    assert spent >= wall * 0.9
    assert 0 < logged["perf/eval_pct"][max(logged["perf/eval_pct"])] < 100
