"""Checkpoints are there whole or not at all, whatever fails, and a damaged one is never taken (C1 to C10, T16)."""

from __future__ import annotations

import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import (
    MANIFEST,
    checkpoints_in,
    find,
    point,
    pointed,
    prune,
    step_name,
    verify,
    write_folder,
)
from microgpt.errors import DiskError, ModelError

OLD = {"a.bin": b"old" * 100, "b.json": b"{}"}
NEW = {"a.bin": b"new" * 100, "b.json": b"{}", "c.bin": b"\x00" * 5000}


def saved(folder: Path, *steps: int) -> list[Path]:
    paths = [folder / step_name(step) for step in steps]
    for path, step in zip(paths, steps):
        write_folder(path, {**OLD, "step": str(step).encode()}, step)
    return paths


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != MANIFEST}


def damage(folder: Path) -> None:
    (folder / "a.bin").write_bytes(b"x" * 300)


# ---- what a save leaves


def test_what_was_written_is_what_stands_there(tmp_path: Path) -> None:
    write_folder(tmp_path / "deep" / "step-000007", NEW, 7)
    assert contents(tmp_path / "deep" / "step-000007") == NEW
    manifest = verify(tmp_path / "deep" / "step-000007")
    assert manifest["step"] == 7
    assert set(manifest["files"]) == set(NEW)
    assert os.listdir(tmp_path / "deep") == ["step-000007"]


def test_a_second_save_under_the_same_name_replaces_the_first(tmp_path: Path) -> None:
    write_folder(tmp_path / "m", NEW, 1)
    write_folder(tmp_path / "m", OLD, 2)
    assert contents(tmp_path / "m") == OLD
    assert os.listdir(tmp_path) == ["m"]


def test_others_can_read_a_checkpoint_as_they_can_read_its_folder(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1)
    assert path.stat().st_mode & 0o777 == 0o755
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in path.iterdir())


def test_temporary_files_stand_beside_their_target(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")  # on Linux it is another filesystem, see conftest.py
    monkeypatch.setenv("TMPDIR", str(elsewhere))
    monkeypatch.setattr(tempfile, "tempdir", None)
    moved: list[tuple[Path, Path]] = []
    for name in ("rename", "replace"):
        real: Any = getattr(os, name)

        def call(source: Any, target: Any, real: Any = real) -> None:
            moved.append((Path(source).parent, Path(target).parent))
            real(source, target)

        monkeypatch.setattr(os, name, call)
    stamp = elsewhere.stat().st_mtime_ns
    write_folder(tmp_path / "m", OLD, 1)
    write_folder(tmp_path / "m", NEW, 1)
    point(tmp_path, "latest", tmp_path / "m")
    assert moved
    assert all(source == target or tmp_path in target.parents for source, target in moved)
    assert all(source == tmp_path or tmp_path in source.parents for source, _ in moved)
    assert elsewhere.stat().st_mtime_ns == stamp


def test_a_write_that_the_disk_garbled_never_takes_the_place_of_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "m", OLD, 1)
    real = Path.write_bytes
    monkeypatch.setattr(Path, "write_bytes", lambda self, data: real(self, bytes(data)[:-1] + b"?"))
    with pytest.raises((ModelError, DiskError)):
        write_folder(tmp_path / "m", NEW, 2)
    monkeypatch.undo()
    verify(tmp_path / "m")
    assert contents(tmp_path / "m") == OLD


# ---- C4: the Nth operation fails


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
@pytest.mark.parametrize("same_name", [False, True], ids=["another_step", "same_step"])
def test_whichever_operation_fails_the_old_or_the_new_checkpoint_is_whole(
    tmp_path: Path, operations: Any, failing: Any, same_name: bool, forever: bool
) -> None:
    target = "step-000001" if same_name else "step-000002"

    def fresh(number: int) -> Path:
        folder = tmp_path / str(number)
        write_folder(folder / "step-000001", OLD, 1)
        return folder

    rehearsal = fresh(-1)
    names = operations(lambda: write_folder(rehearsal / target, NEW, 2))
    assert {"open", "write", "fsync", "mkdir"} <= set(names)
    for number, name in enumerate(names):
        folder = fresh(number)
        where = f"{name}, operation {number} of {len(names)}"
        said = ""
        try:
            failing(lambda folder=folder: write_folder(folder / target, NEW, 2), number, forever)
        except DiskError as error:
            said = error.what
        # silence is right only where the operation was not needed, as the making of a folder that is there
        assert str(folder) in said if said else contents(folder / target) == NEW, where
        found = find(folder, "latest")
        assert contents(found) in (OLD, NEW), where
        assert same_name or contents(folder / "step-000001") == OLD, where
        for _, path in checkpoints_in(folder):
            verify(path)
        if not forever:
            assert not [p.name for p in folder.iterdir() if p.name.startswith(".")], where


@pytest.mark.parametrize("forever", [False, True], ids=["once", "from_then_on"])
def test_whichever_operation_fails_a_pointer_names_the_old_or_the_new_checkpoint(
    tmp_path: Path, operations: Any, failing: Any, forever: bool
) -> None:
    old, new = saved(tmp_path, 1, 2)
    point(tmp_path, "best", old)
    count = len(operations(lambda: point(tmp_path, "best", old)))
    for number in range(count):
        with pytest.raises(DiskError):
            failing(lambda: point(tmp_path, "best", new), number, forever)
        assert pointed(tmp_path, "best") in (old, new)
        assert not list(tmp_path.glob(".*"))
        point(tmp_path, "best", old)


# ---- C1: killed


@pytest.mark.parametrize("same_name", [False, True], ids=["another_step", "same_step"])
def test_killed_before_any_system_call_the_old_or_the_new_checkpoint_is_found_whole(
    tmp_path: Path, killed: Callable[[Callable[[], object], int], bool], same_name: bool
) -> None:
    target = "step-000001" if same_name else "step-000002"
    number = 0
    while True:
        folder = tmp_path / str(number)
        write_folder(folder / "step-000001", OLD, 1)
        went_on = killed(lambda folder=folder: write_folder(folder / target, NEW, 2), number)
        found = find(folder, "latest")
        assert contents(found) in (OLD, NEW), f"killed before system call {number}"
        for _, path in checkpoints_in(folder):
            verify(path)
        if not went_on:
            break
        number += 1
    assert number > 15
    assert contents(find(folder, "latest")) == NEW


def test_killed_before_any_system_call_a_pointer_names_the_old_or_the_new_checkpoint(
    tmp_path: Path, killed: Callable[[Callable[[], object], int], bool]
) -> None:
    old, new = saved(tmp_path, 1, 2)
    number = 0
    while True:
        point(tmp_path, "best", old)
        went_on = killed(lambda: point(tmp_path, "best", new), number)
        assert pointed(tmp_path, "best") in (old, new)
        if not went_on:
            break
        number += 1
    assert number > 3
    assert pointed(tmp_path, "best") == new


def test_killed_while_pruning_what_is_left_is_whole(
    tmp_path: Path, killed: Callable[[Callable[[], object], int], bool]
) -> None:
    number = 0
    while True:
        folder = tmp_path / str(number)
        paths = saved(folder, 1, 2, 3, 4)
        went_on = killed(lambda folder=folder: prune(folder, 2), number)
        for _, path in checkpoints_in(folder):
            verify(path)
        assert find(folder, "latest") == paths[-1]
        assert paths[-2].exists()
        if not went_on:
            break
        number += 1
    assert number > 3


LOOP = """
import itertools, random, sys
from pathlib import Path
from microgpt.checkpoints.folder import point, prune, step_name, write_folder
folder, first = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(first)
for step in itertools.count(first):
    path = folder / step_name(step)
    for _ in range(2):  # a save at a signal can meet one of the same step
        write_folder(path, {"a.bin": draw.randbytes(200_000), "b.json": b"{}"}, step)
    point(folder, "latest", path)
    if step % 3 == 0:
        point(folder, "best", path)
    prune(folder, 2)
    print(step, flush=True)
"""


def test_killed_at_random_moments_every_checkpoint_that_is_seen_is_whole(tmp_path: Path) -> None:
    draw = random.Random(5)
    step = 1
    for _ in range(8):
        child = subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path), str(step)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        said = [child.stdout.readline()]
        time.sleep(draw.uniform(0.0, 0.15))
        child.send_signal(signal.SIGKILL)
        said += child.stdout.read().splitlines()
        child.wait()
        announced = max(int(line) for line in said if line.strip())
        assert checkpoints_in(tmp_path)
        for _, path in checkpoints_in(tmp_path):
            verify(path)
        latest = find(tmp_path, "latest")
        assert verify(latest)["step"] in (announced, announced + 1)  # nothing that was done is lost
        assert find(tmp_path, "best").exists()
        best = pointed(tmp_path, "best")
        assert announced < 3 or (best is not None and verify(best)["step"] % 3 == 0)
        step = announced + 1


# ---- C3: the disk is full

FULL = """
import resource, sys
from pathlib import Path
from microgpt.checkpoints.folder import write_folder
from microgpt.errors import guarded
resource.setrlimit(resource.RLIMIT_FSIZE, (65536, resource.RLIM_INFINITY))
new = {"a.bin": bytes(1000), "weights": bytes(3_000_000)}
sys.exit(guarded(lambda: write_folder(Path(sys.argv[1]), new, 2)))
"""


@pytest.mark.parametrize("name", ["step-000001", "step-000002"])
def test_a_full_disk_keeps_the_old_checkpoint_and_says_what_is_needed(tmp_path: Path, name: str) -> None:
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[1] == resource.RLIM_INFINITY
    (old,) = saved(tmp_path, 1)
    before = contents(old)
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path / name)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 5
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ")
    assert os.listdir(tmp_path) == [old.name]
    assert contents(find(tmp_path, "latest")) == before
    said = re.search(r"([\d,]+) bytes needed, ([\d,]+) free", done.stderr)
    assert said, done.stderr
    needed, free = (int(figure.replace(",", "")) for figure in said.groups())
    assert 3_001_000 <= needed < 3_100_000
    assert free > 0


@pytest.mark.parametrize("where", ["file", "file/deeper"])
def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        write_folder(tmp_path / where / "step-000001", OLD, 1)


# ---- C6, C7: damage


def test_a_truncated_checkpoint_is_passed_over_naming_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = saved(tmp_path, 1, 2, 3)
    os.truncate(third / "a.bin", 299)
    (second / "b.json").unlink()
    assert find(tmp_path, "latest") == first
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in (third, second, first):
        assert str(part) in said
    assert "b.json is missing" in said


@pytest.mark.parametrize("length", [0, 1, 17])
@pytest.mark.parametrize("name", ["a.bin", "b.json", MANIFEST])
def test_a_file_cut_to_any_length_is_found(tmp_path: Path, name: str, length: int) -> None:
    (path,) = saved(tmp_path, 1)
    if length < (path / name).stat().st_size:
        os.truncate(path / name, length)
        with pytest.raises(ModelError) as caught:
            verify(path)
        assert str(path) in caught.value.what


def test_a_file_that_grew_is_found(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1)
    with open(path / "a.bin", "ab") as file:
        file.write(b"\0")
    with pytest.raises(ModelError):
        verify(path)


def test_one_flipped_bit_is_found_in_100_places(tmp_path: Path) -> None:
    draw = random.Random(0)
    path = tmp_path / "m"
    write_folder(path, {name: draw.randbytes(5000) for name in ("weights", "optimizer", "tokenizer", "meta")}, 1)
    names = sorted(p.name for p in path.iterdir() if p.name != MANIFEST)
    for number in range(100):
        file = path / names[number % len(names)]
        good = file.read_bytes()
        bad = bytearray(good)
        place = draw.randrange(len(bad) * 8)
        bad[place // 8] ^= 1 << place % 8
        file.write_bytes(bad)
        with pytest.raises(ModelError, match="sha256"):
            verify(path)
        file.write_bytes(good)
    verify(path)


def test_one_flipped_bit_is_found_in_every_place_of_the_manifest(tmp_path: Path) -> None:
    path = tmp_path / "m"
    write_folder(path, {"a": b"1"}, 840)
    good = (path / MANIFEST).read_bytes()
    missed: list[str] = []
    for place in range(len(good) * 8):
        bad = bytearray(good)
        bad[place // 8] ^= 1 << place % 8
        (path / MANIFEST).write_bytes(bad)
        try:
            found = verify(path)
        except ModelError:
            continue
        missed.append(f"byte {place // 8}: {found}"[:120])
    assert missed == []


# ---- C9, T16: which one is found


def test_where_all_are_damaged_each_reason_is_listed(tmp_path: Path) -> None:
    first, second, third = saved(tmp_path, 1, 2, 3)
    damage(first)
    os.truncate(second / "a.bin", 3)
    (third / MANIFEST).write_text("{")
    with pytest.raises(ModelError) as caught:
        find(tmp_path, "latest")
    assert caught.value.exit_code == 4
    for path, reason in ((first, "sha256"), (second, "3 bytes instead of 300"), (third, "MANIFEST.json is damaged")):
        assert str(path) in caught.value.what
        assert reason in caught.value.what
    with pytest.raises(ModelError):
        find(tmp_path, "best")


@pytest.mark.parametrize("exists", [False, True])
def test_where_there_is_none_it_says_so(tmp_path: Path, exists: bool) -> None:
    folder = tmp_path / "checkpoints"
    if exists:
        folder.mkdir()
    with pytest.raises(ModelError, match="no checkpoint") as caught:
        find(folder, "latest")
    assert str(folder) in caught.value.what


def test_the_latest_is_by_step_whatever_the_clock_and_the_names_say(tmp_path: Path) -> None:
    nine, late, middle = saved(tmp_path, 9, 1_000_000, 999_999)
    os.utime(nine, (4e9, 4e9))
    for path in (late, *late.iterdir()):
        os.utime(path, (1e8, 1e8))
    assert find(tmp_path, "latest") == late
    assert [path for _, path in checkpoints_in(tmp_path)] == [nine, middle, late]
    late.rename(tmp_path / "step-000002")  # a name says nothing either
    assert find(tmp_path, "latest") == tmp_path / "step-000002"


def test_the_best_is_the_one_pointed_at_and_else_the_latest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = saved(tmp_path, 1, 2, 3)
    assert find(tmp_path, "best") == third
    point(tmp_path, "best", second)
    assert find(tmp_path, "best") == second
    assert find(tmp_path, "latest") == third
    assert capsys.readouterr().err == ""
    damage(second)
    assert find(tmp_path, "best") == third
    said = capsys.readouterr().err
    assert str(second) in said
    assert str(third) in said
    assert first.exists()


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"gone\n", b"../other/step-000001\n", b"/etc\n", b"..\n", b"\xff\xfe", b"\x00", b"a" * 5000],
)
def test_a_pointer_that_names_nothing_here_is_passed_over(tmp_path: Path, content: bytes) -> None:
    saved(tmp_path / "other", 1)
    (mine,) = saved(tmp_path / "checkpoints", 5)
    (tmp_path / "checkpoints" / "best").write_bytes(content)
    assert pointed(tmp_path / "checkpoints", "best") is None
    assert find(tmp_path / "checkpoints", "best") == mine


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", "3", '"x"', "{}", '{"step": 2}', '{"version": 1, "step": 2, "files": []}',
        '{"version": 1, "step": 2, "files": {"a.bin": null}}', '{"version": 1, "step": 2, "files": {"a.bin": {}}}',
        '{"version": 1, "step": 1e999, "files": {}}', '{"version": 1, "step": NaN, "files": {}}',
        '{"version": 1, "step": "x", "files": {}}', '{"version": 1, "step": null, "files": {}}',
        '{"version": 1, "step": {}, "files": {}}', '{"version": "1", "step": 2, "files": {}}',
        '{"version": 99, "step": 2, "files": {}}', '{"version": 1, "step": -Infinity, "files": {}}',
        '{"version": 1, "step": 2, "files": {"..": {"bytes": 1, "sha256": ""}}}',
        '{"version": 1, "step": 2, "files": {"a\\u0000b": {"bytes": 1, "sha256": ""}}}',
        '{"version": 1, "step": 2, "files": {"\\ud800": {"bytes": 1, "sha256": ""}}}',
        "[" * 100_000, "9" * 10_000,
    ],
    ids=range(23),
)  # fmt: skip
def test_a_manifest_that_says_nothing_sensible_is_damage_and_no_crash(tmp_path: Path, text: str) -> None:
    good, bad = saved(tmp_path, 1, 2)
    (bad / MANIFEST).write_text(text)
    with pytest.raises(ModelError):
        verify(bad)
    assert find(tmp_path, "latest") == good
    prune(tmp_path, 2)


def test_a_manifest_that_lists_no_files_does_not_make_a_checkpoint_whole(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1)
    damage(path)
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"] = {}
    (path / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ModelError):
        verify(path)


# ---- C10: pruning


def test_pruning_keeps_the_newest_the_best_and_what_is_not_its_own(tmp_path: Path) -> None:
    mine, other = tmp_path / "mine" / "checkpoints", tmp_path / "other" / "checkpoints"
    paths, others = saved(mine, 1, 2, 3, 4, 5), saved(other, 1, 2, 3, 4, 5)
    (mine / "notes.txt").write_text("keep")
    (mine / "step-000000").symlink_to(others[0])
    point(mine, "best", paths[1])
    point(mine, "latest", paths[4])
    prune(mine, 2)
    assert [p for p in paths if p.exists()] == [paths[1], paths[3], paths[4]]
    assert (mine / "notes.txt").read_text() == "keep"
    assert all(verify(p) for p in others)
    assert find(mine, "best") == paths[1]
    assert not [p for p in mine.iterdir() if p.name.startswith(".") and p.is_dir() and not p.is_symlink()]


@pytest.mark.parametrize("keep", [0, 1, 2])
def test_pruning_keeps_at_least_two(tmp_path: Path, keep: int) -> None:
    paths = saved(tmp_path, 1, 2, 3)
    prune(tmp_path, keep)
    assert [p.exists() for p in paths] == [False, True, True]


def test_pruning_keeps_as_many_as_it_is_told_by_step(tmp_path: Path) -> None:
    paths = saved(tmp_path, 5, 1, 4, 2, 3)
    prune(tmp_path, 3)
    assert sorted(p.name for p in paths if p.exists()) == ["step-000003", "step-000004", "step-000005"]
