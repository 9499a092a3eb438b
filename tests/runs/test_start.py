"""`resume=auto` goes on with a job's own run, and with no other's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import step_name, write_folder
from microgpt.files import FolderLock
from microgpt.runs.find import OUTPUTS
from microgpt.runs.folder import RunFolder
from microgpt.runs.start import unfinished


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(path: Path, checkpoint: bool = True, **facts: Any) -> Path:
    known = {"stage": "train", "status": "KILLED", "started": "2026-11-20T10:00:00+0000", "name": path.name}
    RunFolder(path).update(**(known | facts))
    if checkpoint:
        write_folder(path / "checkpoints" / step_name(3), {"meta.json": b"{}"}, 3)
    return path


def test_the_newest_that_has_a_checkpoint_and_did_not_end_is_found() -> None:
    day = OUTPUTS / "2026-11-20"
    run(day / "old")
    newer = run(day / "newer", started="2026-11-20T11:00:00+0000", status="FAILED")
    run(day / "finished", started="2026-11-20T12:00:00+0000", status="FINISHED")
    run(day / "pruned", started="2026-11-20T12:00:00+0000", status="PRUNED")
    run(day / "empty", checkpoint=False, started="2026-11-20T12:00:00+0000")
    found = unfinished("", None)
    assert found is not None
    assert found.path == newer


def test_a_name_keeps_a_job_to_its_own_run() -> None:
    mine = run(OUTPUTS / "2026-11-20" / "mine")
    run(OUTPUTS / "2026-11-20" / "theirs", started="2026-11-20T11:00:00+0000")
    found = unfinished("mine", None)
    assert found is not None
    assert found.path == mine
    assert unfinished("another", None) is None


def test_a_folder_keeps_a_job_to_the_run_in_it(tmp_path: Path) -> None:
    run(OUTPUTS / "2026-11-20" / "theirs")
    assert unfinished("", tmp_path / "mine") is None
    mine = run(tmp_path / "mine")
    found = unfinished("", mine)
    assert found is not None
    assert found.path == mine


def test_a_run_that_is_still_training_is_found_and_its_lock_then_refuses() -> None:
    alive = run(OUTPUTS / "2026-11-20" / "alive", status="RUNNING")
    lock = FolderLock(alive)
    try:
        found = unfinished("alive", None)
        assert found is not None
        assert found.status == "RUNNING"
    finally:
        lock.close()
