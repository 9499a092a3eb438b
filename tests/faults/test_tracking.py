"""A store that is locked, deleted or corrupt costs no step and no metric; dead runs are ended (M1, M2, M10)."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import psutil
from warm import Child, Warm

from microgpt.runs.find import Run
from microgpt.runs.folder import RUNNING, RunFolder, read_metrics
from runs import RUN
from waiting import until

#: until it is stopped
LONG = [w for w in RUN if not w.startswith("tracking=")] + ["trainer.max_steps=1000000", "trainer.eval_interval=200"]


def steps(run: Path) -> int:
    return max(read_metrics(run).get("train/loss", {0: 0}))


def stored(database: Path, run: Path) -> dict[str, list[int]]:
    """Key to steps as they lie in the store; a step that was sent twice is there twice."""
    found: dict[str, list[int]] = {}
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as opened:
        words = "SELECT key, step FROM metrics WHERE run_uuid = ? ORDER BY step"
        for key, step in opened.execute(words, (Run(run, {}).mlflow_id,)):
            found.setdefault(key, []).append(step)
    return found


def status(database: Path, run_id: str) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)) as opened:
        row = opened.execute("SELECT status FROM runs WHERE run_uuid = ?", (run_id,)).fetchone()
        return row[0] if row else ""


def nothing_is_missing(database: Path, run: Path) -> bool:
    there = stored(database, run)
    return all(there.get(key) == sorted(values) for key, values in read_metrics(run).items())


def tracked(warm: Warm, home: Path) -> tuple[Child, Path, Path]:
    """A run that goes on until it is stopped, some of whose metrics are in the store."""
    child = warm.start("train", *LONG, cwd=home)
    run, database = home / "run", home / "mlruns" / "mlflow.db"
    until(lambda: Run(run, {}).mlflow_id and stored(database, run).get("train/loss"))
    return child, run, database


def stopped(child: Child) -> None:
    began = time.monotonic()
    child.signal(signal.SIGTERM)
    assert child.wait() == 143, child.said
    assert time.monotonic() - began < 25  # 10 s on a machine that does nothing else
    assert child.said.count("note:") <= 1, child.said
    assert "Traceback" not in child.said


def test_a_store_that_is_locked_costs_no_step_and_no_metric(warm: Warm, tmp_path: Path, torture: bool) -> None:
    child, run, database = tracked(warm, tmp_path)
    with closing(sqlite3.connect(database, timeout=30, isolation_level=None)) as blocker:
        blocker.execute("BEGIN IMMEDIATE")
        seen = steps(run)
        time.sleep(60 if torture else 3)
        assert steps(run) > seen + 50, "training goes on"
        blocker.execute("ROLLBACK")
    stopped(child)
    until(lambda: status(database, Run(run, {}).mlflow_id) == "KILLED")
    assert nothing_is_missing(database, run)


def test_a_store_that_is_deleted_in_mid_run_is_made_again_and_gets_everything(warm: Warm, tmp_path: Path) -> None:
    child, run, database = tracked(warm, tmp_path)
    first = Run(run, {}).mlflow_id
    for path in database.parent.glob("mlflow.db*"):
        path.unlink()
    seen = steps(run)
    until(lambda: steps(run) > seen + 50)
    until(lambda: Run(run, {}).mlflow_id not in ("", first))
    stopped(child)
    until(lambda: status(database, Run(run, {}).mlflow_id) == "KILLED")
    assert nothing_is_missing(database, run)
    assert "the store was deleted" in (run / "mlflow.log").read_text()


def test_a_corrupt_store_costs_one_note_and_everything_is_sent_to_a_new_one(warm: Warm, tmp_path: Path) -> None:
    child, run, database = tracked(warm, tmp_path)
    for path in database.parent.glob("mlflow.db*"):
        path.write_bytes(b"no database" * 1000)
    seen = steps(run)
    until(lambda: steps(run) > seen + 50)
    stopped(child)
    assert "note: MLflow" in child.said
    again = [sys.executable, "-m", "microgpt.tracking.feeder", "run"]
    assert "python -m microgpt.tracking.feeder run" in child.said
    until(lambda: "Error" in (run / "mlflow.log").read_text(), 300)  # MLflow itself tries for over a minute
    assert (run / "mlflow.log").stat().st_size < 100_000, "the same fault is not written down again and again"
    words = ["-m", "microgpt.validate", "data=names", "tokenizer=char", "hydra.run.dir=report"]
    began = time.monotonic()
    done = subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, "another stage is not held by it either"
    assert done.stderr.count("note: not logged to MLflow") == 1
    assert time.monotonic() - began < 60
    for path in database.parent.glob("mlflow.db*"):
        path.rename(path.with_name(f"damaged-{path.name}"))
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert nothing_is_missing(database, run)


def test_eight_first_trainings_at_once_make_one_store_and_lose_nothing(warm: Warm, tmp_path: Path) -> None:
    words = [w for w in RUN if not w.startswith(("tracking=", "hydra.run.dir="))] + ["trainer.max_steps=40"]
    runs, database = [tmp_path / f"run{n}" for n in range(8)], tmp_path / "mlruns" / "mlflow.db"
    env = {"MICROGPT_CACHE_DIR": str(tmp_path / "cache")}  # in which no store was made before
    children = [
        warm.start("train", *words, f"name={r.name}", f"hydra.run.dir={r.name}", cwd=tmp_path, env=env) for r in runs
    ]
    assert [child.wait() for child in children] == [0] * 8, [child.said for child in children]
    until(lambda: all(Run(run, {}).mlflow_id for run in runs), 300)
    ids = {Run(run, {}).mlflow_id for run in runs}
    assert len(ids) == 8
    until(lambda: all(status(database, id) == "FINISHED" for id in ids), 300)
    with closing(sqlite3.connect(database, timeout=30)) as opened:
        assert sorted(opened.execute("SELECT name FROM experiments")) == [("Default",), ("microgpt",)]
        assert {id for (id,) in opened.execute("SELECT run_uuid FROM runs")} == ids
    assert all(nothing_is_missing(database, run) for run in runs)
    made = sum("making the MLflow store" in (run / "mlflow.log").read_text() for run in runs)
    assert made == 1, "one made it, the others waited"


def test_four_writers_of_5000_metrics_lose_none_and_are_never_locked_out(tmp_path: Path) -> None:
    runs = [tmp_path / f"run{number}" for number in range(4)]
    for run in runs:
        folder = RunFolder(run)
        folder.write_config({"name": run.name})
        folder.update(stage="train", status="FINISHED", ready=True, name=run.name, started="")
        lines = [{"step": s, "time": "", "metrics": {f"m/{k}": s * k for k in range(5)}} for s in range(1000)]
        (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = [sys.executable, "-m", "microgpt.tracking.feeder"]
    writers = [subprocess.Popen([*words, run.name], cwd=tmp_path, stderr=subprocess.PIPE, text=True) for run in runs]
    said = [writer.communicate(timeout=240)[1] for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, said
    assert not any("locked" in words for words in said)
    for run in runs:
        there = stored(tmp_path / "mlruns" / "mlflow.db", run)
        assert there == {f"m/{k}": list(range(1000)) for k in range(5)}


def test_what_a_crash_left_running_is_ended_by_the_next_start(warm: Warm, tmp_path: Path) -> None:
    """The machine went down: training and feeder are dead at once, and so is a sweep. Another is alive."""
    child, run, database = tracked(warm, tmp_path)
    until(lambda: steps(run) > 20)
    (feeder,) = [p for p in psutil.process_iter(["cmdline", "cwd"]) if p.info["cwd"] == str(tmp_path)
                 and "microgpt.tracking.feeder" in (p.info["cmdline"] or [])]  # fmt: skip
    feeder.kill()
    child.signal(signal.SIGKILL)
    assert child.wait() == -9
    crashed = Run(run, {}).mlflow_id
    assert status(database, crashed) == RUNNING
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    host, (experiment,) = socket.gethostname(), client.search_experiments(filter_string="name = 'microgpt'")
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    others = {
        name: client.create_run(experiment.experiment_id, tags=tags).info.run_id
        for name, tags in {
            "dead sweep": {"microgpt.host": host, "microgpt.pid": str(dead.pid)},
            "living sweep": {"microgpt.host": host, "microgpt.pid": str(os.getpid())},
            "another machine's": {"microgpt.host": "elsewhere", "microgpt.pid": str(dead.pid)},
            "folder deleted": {"microgpt.host": host, "microgpt.run_folder": str(tmp_path / "gone")},
            "another tool's": {},
        }.items()
    }
    child = warm.start("train", *LONG, "trainer.max_steps=20", "hydra.run.dir=next", cwd=tmp_path)
    assert child.wait() == 0, child.said
    until(lambda: status(database, crashed) == "KILLED")
    assert nothing_is_missing(database, run), "its last metrics are sent too"
    assert {name: status(database, run_id) for name, run_id in others.items()} == {
        "dead sweep": "KILLED",
        "living sweep": RUNNING,
        "another machine's": RUNNING,
        "folder deleted": "KILLED",
        "another tool's": RUNNING,
    }
    until(lambda: status(database, Run(tmp_path / "next", {}).mlflow_id) == "FINISHED")
