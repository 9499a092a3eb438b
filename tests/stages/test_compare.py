"""A real sweep, one trial of which fails, in a report whose numbers are those of its run folders."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest

from microgpt.runs.folder import read_metrics, read_run

pytestmark = pytest.mark.slow

#: the trial with the large rate leaves the numbers
SWEEP = [
    *("optimizer=adamw", "optimizer.grad_clip=0", "optimizer.schedule=constant", "optimizer.warmup_steps=0"),
    *("model.norm=layernorm", "optimizer.weight_decay=10", "trainer.max_steps=20", "tracking=off"),
    "optimizer.learning_rate=0.01,0.001,10",
]


@pytest.fixture(scope="module")
def home(warm_anywhere: Any, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that a sweep of three was started in."""
    folder = tmp_path_factory.mktemp("compared")
    warm_anywhere("train", "-m", *small, *SWEEP, cwd=folder, code=6)
    return folder


def test_a_sweep_is_compared_into_its_own_folder(warm_anywhere: Any, home: Path) -> None:
    (sweep,) = (home / "outputs").glob("*/*-sweep")
    name = str(sweep.relative_to(home))
    done = warm_anywhere("compare", f"runs={name}", f"hydra.run.dir={name}/compare", cwd=home, env={"COLUMNS": "160"})
    made = sweep / "compare"
    told = json.loads((made / "compare.json").read_text())
    assert [run["status"] for run in told["runs"]] == ["FINISHED", "FINISHED", "FAILED"]
    assert told["swept"] == ["optimizer.learning_rate"]
    page = (made / "compare.html").read_text()
    rows = list(csv.DictReader((made / "runs.csv").read_text().splitlines()))
    for run, row in zip(told["runs"][:2], rows):
        folder = home / run["id"]
        facts, metrics = read_run(folder), read_metrics(folder)
        assert run["best_val_loss"] == facts["best_val_loss"] == metrics["val/loss"][facts["best_step"]]
        assert float(row["best_val_loss"]) == facts["best_val_loss"]
        assert run["best_val_bpb"] == facts["best_val_bpb"]
        assert f'data-v="{facts["best_val_loss"]}">{facts["best_val_loss"]:.4f}' in page
        assert run["flops"] == facts["tokens"] * facts["flops_per_token"]
        assert run["seconds"] == facts["train_seconds"]
        clock = run["validation"]["seconds"][-1]
        assert clock == pytest.approx(facts["train_seconds"], rel=0.05), "measured speeds add up to the time it took"
        assert str(run["settings"]["optimizer.learning_rate"]) in done.stderr
        assert dict(zip(run["validation"]["step"], run["validation"]["value"])) == metrics["val/loss"]
    assert told["runs"][2]["error"] in re.sub("&#x27;", "'", page)
    assert (made / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert f"written: {name}/compare/compare.html" in done.stderr
    assert f"python -m microgpt.evaluate run={told['runs'][0]['id']}" in done.stderr


def test_nothing_said_compares_the_latest_sweep_again(warm_anywhere: Any, home: Path) -> None:
    warm_anywhere("compare", "top=1", "tracking.progress=false", cwd=home)
    (made,) = (home / "outputs").glob("*/*-compare")
    assert len(json.loads((made / "compare.json").read_text())["runs"]) == 1


def test_a_run_that_is_not_there_is_one_line(warm_anywhere: Any, home: Path) -> None:
    done = warm_anywhere("compare", "runs=nothing", cwd=home, code=4)
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: no run 'nothing'")
    left = (p for p in (home / "outputs").glob("*/*-compare*") if not (p / "compare.html").exists())
    assert list(left) == [], "no folder is left of what made nothing"
