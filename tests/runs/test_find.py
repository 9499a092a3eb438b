"""A user's word for a run finds that run, or an error that names the runs there are."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import step_name, write_folder
from microgpt.errors import ModelError
from microgpt.files import FolderLock
from microgpt.runs.find import OUTPUTS, all_runs, find_run, model_path, point_latest
from microgpt.runs.folder import RunFolder


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(name: str, started: str = "2026-11-20T10:00:00+0000", **facts: Any) -> Path:
    path = OUTPUTS / "2026-11-20" / name
    RunFolder(path).update(**{"stage": "train", "status": "FINISHED", "started": started, **facts})
    return path


def test_a_run_is_found_by_its_folder(tmp_path: Path) -> None:
    path = run("a")
    run("b")
    assert find_run(str(path)).path == path
    assert find_run(str(tmp_path / path)).path == tmp_path / path
    assert find_run(str(path) + "/").facts["stage"] == "train"


def test_a_run_is_found_by_its_mlflow_id() -> None:
    path, other = run("a"), run("b")
    (path / "mlflow.json").write_text(json.dumps({"run_id": "0123abcd"}))
    (other / "mlflow.json").write_text("{torn")
    assert find_run("0123abcd").path == path
    with pytest.raises(ModelError):
        find_run("")


@pytest.mark.parametrize("content", ["[]", "null", "3", "{}", '{"run_id": null}', "[" * 100_000])
def test_a_damaged_mlflow_record_hides_no_run(content: str) -> None:
    damaged, good = run("a"), run("b")
    (damaged / "mlflow.json").write_text(content)
    (good / "mlflow.json").write_text('{"run_id": "f00"}')
    assert find_run("f00").path == good


def test_latest_is_what_the_link_says_and_else_the_last_started() -> None:
    old = run("b", started="2026-11-20T10:00:00+0000")
    new = run("a", started="2026-11-20T11:00:00+0000")
    assert find_run("latest").path == new
    point_latest(old)
    assert find_run("latest").path == old
    assert os.readlink(OUTPUTS / "latest") == "2026-11-20/b"
    point_latest(new)
    assert find_run("latest").path == new
    assert sorted(p.name for p in OUTPUTS.iterdir()) == ["2026-11-20", "latest"]


def test_a_link_to_a_run_that_is_gone_is_passed_over() -> None:
    left, gone = run("a"), run("b")
    point_latest(gone)
    (gone / "run.json").unlink()
    gone.rmdir()
    assert find_run("latest").path == left


def test_the_link_makes_no_run_appear_twice() -> None:
    path = run("a")
    point_latest(path)
    assert [r.path for r in all_runs()] == [path]


def test_the_best_is_by_bits_per_byte_then_loss() -> None:
    run("none", best_val_loss=None)
    run("nan", best_val_loss="nan")
    run("low_loss", best_val_loss=1.0, best_val_bpb=3.0)
    best = run("low_bpb", best_val_loss=2.0, best_val_bpb=2.0)
    run("same_bpb", best_val_loss=2.5, best_val_bpb=2.0)
    assert find_run("best").path == best


def test_the_best_of_runs_without_a_validation_is_none() -> None:
    run("a")
    with pytest.raises(ModelError, match="'best'"):
        find_run("best")


def test_other_stages_and_damaged_records_are_no_runs() -> None:
    run("validated", stage="validate")
    torn = run("torn")
    (torn / "run.json").write_text("{")
    swept = OUTPUTS / "2026-11-20" / "sweep" / "0"
    RunFolder(swept).update(stage="train", started="x")
    assert [r.path for r in all_runs()] == [swept]


@pytest.mark.parametrize("reference", ["latest", "best", "gone", "outputs", "outputs/gone", "", ".", "../.."])
def test_an_error_names_the_runs_there_are(reference: str) -> None:
    if reference == "best":
        paths = [run("a"), run("b")]
    elif reference == "latest":
        paths = []
    else:
        paths = [run("a"), run("b", best_val_loss=1.0)]
    with pytest.raises(ModelError) as caught:
        find_run(reference)
    assert repr(reference) in caught.value.what
    for path in paths:
        assert str(path) in caught.value.mend
    if not paths:
        assert "there is none" in caught.value.mend


@pytest.mark.parametrize("reference", ["~nobody_of_this_name", "a" * 5000, "a\0b", "\ud800", "a/" * 3000, "\x1b[2J"])
def test_a_strange_reference_is_one_line(reference: str) -> None:
    with pytest.raises(ModelError):
        find_run(reference)


# ---- how a run stands

KILLED = """
import sys, time
from pathlib import Path
from microgpt.files import FolderLock
from microgpt.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
lock = FolderLock(folder.path)
folder.update(stage="train", status="RUNNING")
print("running", flush=True)
time.sleep(60)
"""


def test_a_run_whose_process_was_killed_stands_as_killed() -> None:
    path = OUTPUTS / "day" / "a"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    assert find_run(str(path)).status == "RUNNING"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert find_run(str(path)).facts["status"] == "RUNNING"
    assert find_run(str(path)).status == "KILLED"


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_ended_stands_as_it_ended(status: str) -> None:
    path = run("a", status=status)
    assert find_run(str(path)).status == status
    lock = FolderLock(path)
    assert find_run(str(path)).status == status
    lock.close()


# ---- its model


def test_a_run_means_its_best_checkpoint_or_its_latest() -> None:
    path = run("a")
    checkpoints = path / "checkpoints"
    for step in (1, 2):
        write_folder(checkpoints / step_name(step), {"meta.json": b"{}"}, step)
    (checkpoints / "best").write_text("step-000001\n")
    point_latest(path)
    for reference in (str(path), "latest"):
        assert model_path(reference) == checkpoints / "step-000001"
        assert model_path(reference, "latest") == checkpoints / "step-000002"
    one = checkpoints / "step-000002"
    assert model_path(str(one)) == one


def test_a_run_without_checkpoints_says_so() -> None:
    path = run("a")
    with pytest.raises(ModelError, match="no checkpoint"):
        model_path(str(path))
    with pytest.raises(ModelError, match="no run"):
        model_path("gone")
