"""What kills leave behind goes at the next start of its owner, and pruning never takes the last good checkpoints."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from warm import Warm

from microgpt import files
from microgpt.checkpoints.folder import checkpoints_in, find, is_whole, point, prune, step_name, write_folder
from runs import RUN, assert_equal, at_call


def hidden(folder: Path) -> list[str]:
    left = (".tmp", ".old", ".part")
    return sorted(p.name for p in folder.iterdir() if p.name.startswith(".") and p.name.endswith(left))


@pytest.mark.parametrize("name, number", [("put_in_place", 3), ("os.replace", 9)])
def test_a_resumed_run_removes_what_a_kill_left_beside_its_checkpoints(
    warm: Warm, unbroken: Path, tmp_path: Path, name: str, number: int
) -> None:
    kill = at_call("microgpt.files", name, number)
    assert warm.start("train", *RUN, cwd=tmp_path, before=kill).wait() == -9
    run = tmp_path / "run"
    assert hidden(run) + hidden(run / "checkpoints"), "the kill must leave something for this test to mean anything"
    (run / ".run.json.4711.tmp").write_text("{")
    (run / "checkpoints" / ".latest.4711.tmp").write_text("step-0")
    warm.run("train", "resume=run", cwd=tmp_path)
    assert hidden(run) == hidden(run / "checkpoints") == []
    assert_equal(unbroken, run)


def test_a_checkpoint_that_a_kill_left_half_removed_goes_too(warm: Warm, unbroken: Path, tmp_path: Path) -> None:
    kill = at_call("microgpt.checkpoints.folder", "shutil.rmtree", 4)
    assert warm.start("train", *RUN, cwd=tmp_path, before=kill).wait() == -9
    run = tmp_path / "run"
    assert any(name.endswith(".old") for name in hidden(run / "checkpoints"))
    warm.run("train", "resume=run", cwd=tmp_path)
    assert hidden(run / "checkpoints") == []
    assert_equal(unbroken, run)


def test_a_second_start_in_a_folder_that_is_in_use_removes_nothing(tmp_path: Path, warm: Warm) -> None:
    lock = files.FolderLock(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / ".step-000010.x.tmp").mkdir(parents=True)
    warm.run("train", *RUN, cwd=tmp_path, code=7)
    lock.close()
    assert hidden(tmp_path / "run" / "checkpoints") == [".step-000010.x.tmp"]


TOKENIZE = """
import os, signal, sys, time
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data import prepare, shards
if sys.argv[2] != "finish":
    real = shards.SetWriter.close
    def close(self):
        print("inside", flush=True)
        os.kill(os.getpid(), signal.SIGKILL) if sys.argv[2] == "killed" else time.sleep(60)
        real(self)
    shards.SetWriter.close = close
prepare.prepare(DataConfig(path=[sys.argv[1]]), TokenizerConfig(kind="char"), show_progress=False)
"""


def test_the_token_cache_loses_what_kills_left_and_nothing_that_is_being_made(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    env = {**os.environ, "MICROGPT_CACHE_DIR": str(cache)}
    for name in ("dead", "busy", "new"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name} {i}\n" for i in range(100)))

    def tokenize(name: str, how: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-c", TOKENIZE, str(tmp_path / f"{name}.txt"), how]
        return subprocess.Popen(words, env=env, stdout=subprocess.PIPE)

    assert tokenize("dead", "killed").wait(180) == -signal.SIGKILL
    (left,) = hidden(cache / "tokens")
    busy = tokenize("busy", "sleep")
    try:
        assert busy.stdout is not None
        assert busy.stdout.readline() == b"inside\n"
        assert len(hidden(cache / "tokens")) == 1, "the start of another data set has removed the dead one's"
        assert hidden(cache / "tokens") != [left]
        assert tokenize("new", "finish").wait(180) == 0
        assert len(hidden(cache / "tokens")) == 1, "what a living process makes stays"
    finally:
        busy.kill()
        busy.wait()
    assert tokenize("new", "finish").wait(180) == 0, "a start that finds its tokens made clears up too"
    assert hidden(cache / "tokens") == []


# ---- C10: pruning


def saved(folder: Path, *steps: int) -> list[Path]:
    paths = [folder / step_name(step) for step in steps]
    for path, step in zip(paths, steps):
        write_folder(path, {"a": b"content %d" % step}, step)
    return paths


def damage(path: Path) -> None:
    (path / "a").write_bytes(b"CONTENT")


@pytest.mark.parametrize("bad", [[6], [5], [5, 6], [4, 5, 6], [3, 5, 6], [2, 3, 4, 5, 6], []])
@pytest.mark.parametrize("keep", [2, 3])
def test_pruning_never_takes_the_two_newest_that_are_whole(tmp_path: Path, bad: list[int], keep: int) -> None:
    paths = saved(tmp_path, 1, 2, 3, 4, 5, 6)
    for step in bad:
        damage(paths[step - 1])
    good = [path for path in paths if is_whole(path)]
    prune(tmp_path, keep)
    assert all(path.exists() for path in good[-2:])
    left = [path for _, path in checkpoints_in(tmp_path)]
    assert set(left) == {*paths[-keep:], *good[-2:]}
    assert find(tmp_path, "latest") == good[-1]


def test_the_best_and_the_latest_stay_whatever_is_damaged(tmp_path: Path) -> None:
    paths = saved(tmp_path, 1, 2, 3, 4, 5, 6)
    point(tmp_path, "best", paths[0])
    point(tmp_path, "latest", paths[1])
    damage(paths[5])
    prune(tmp_path, 2)
    assert [p.exists() for p in paths] == [True, True, False, True, True, True]


def test_a_run_prunes_only_what_its_good_checkpoints_allow(warm: Warm, tmp_path: Path) -> None:
    """The disk garbles every other checkpoint after it was verified; two good ones are there at every moment."""
    garble = """
import microgpt.checkpoints.folder as checkpoints, microgpt.training.saving as saving
real = saving.prune
def prune(folder, keep, verified):
    if verified.name.endswith(("20", "40", "60", "80", "100")):
        path = verified / "weights.safetensors"
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        verified = None
    real(folder, keep, verified)
    print("whole", sum(checkpoints.is_whole(p) for _, p in checkpoints.checkpoints_in(folder)))
saving.prune = prune
"""
    said = warm.run("train", *RUN, cwd=tmp_path, before=garble)
    counts = [int(line.split()[1]) for line in said.splitlines() if line.startswith("whole ")]
    assert len(counts) == 12
    assert min(counts[3:]) >= 2
