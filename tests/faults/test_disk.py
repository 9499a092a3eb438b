"""Every write, fsync and rename of a save fails once, and disks fill up for real (C2 to C4, C12)."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm import Warm

from microgpt.checkpoints.folder import checkpoints_in, find
from microgpt.runs.folder import read_run
from runs import RUN, assert_equal, torn

#: At its third save the run forks for every operation of a save: each child fails there and ends as the run would,
#: in a copy of the folder of its own.
SWEEP = """
import builtins, errno, io, os, shutil, sys
from pathlib import Path
import microgpt.training.saving as saving
from microgpt.training import metrics
metrics.FLUSH_SECONDS = 3600  # the lines of all steps wait for the save, however slow the machine

class Watched:
    def __init__(self, file):
        self.file = file
    def write(self, content):
        operation("write")
        return self.file.write(content)
    def __getattr__(self, name):
        return getattr(self.file, name)
    def __enter__(self):
        return self
    def __exit__(self, *_):
        self.file.close()
    def __iter__(self):
        return iter(self.file)

count, failing, forever = -1, None, False
def operation(name):
    global count
    if count < 0:
        return
    count += 1
    if failing is not None and (count == failing or (forever and count > failing)):
        raise OSError(errno.ENOSPC, "No space left on device")

def before(owner, name):
    real = getattr(owner, name)
    def call(*args, **more):
        operation(name)
        return real(*args, **more)
    setattr(owner, name, call)

real_open = io.open
def opened(file, mode="r", *args, **more):
    if not set(mode) & set("wax+"):
        return real_open(file, mode, *args, **more)
    operation("open")
    return Watched(real_open(file, mode, *args, **more))

io.open = builtins.open = opened
for name in ("fsync", "mkdir", "rename", "replace"):
    before(os, name)
real, saves = saving.Saving._save, 0

def save(self, trainer, module):
    global count, failing, forever, saves
    saves += 1
    if saves != 3 or os.environ["SWEEP"] == "off":
        return real(self, trainer, module)
    self.folder.close()
    home, number = os.getcwd(), 0
    while True:
        often = os.environ["SWEEP"] == "thorough" or number % 8 == 0
        for forever in (False, True) if often else (False,):
            place = Path(home).parent / f"{number:03d}-{'from_then_on' if forever else 'once'}"
            shutil.copytree(home, place)
            child = os.fork()
            if child == 0:
                for stream, name in ((1, "out"), (2, "err")):
                    os.dup2(os.open(f"{place}.{name}", os.O_WRONLY | os.O_CREAT), stream)
                os.chdir(place)
                count, failing = 0, number + 1
                real(self, trainer, module)
                if count <= number:
                    os._exit(99)  # there are no more
                count = -1
                os.environ["SWEEP"] = "off"
                return
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            if code == 99:
                shutil.rmtree(place)
                os._exit(0)
            with real_open(f"{place}.code", "w") as file:
                file.write(str(code))
        number += 1
saving.Saving._save = save
"""


def test_whichever_operation_of_a_save_fails_the_run_ends_with_5_and_goes_on_to_equal_bits(
    warm: Warm, unbroken: Path, tmp_path: Path, torture: bool
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    warm.run("train", *RUN, cwd=home, before=SWEEP, env={"SWEEP": "thorough" if torture else "on"})
    cases = sorted(p.with_suffix("") for p in tmp_path.glob("*.code"))
    assert len({case.name[:3] for case in cases}) > 45, "each operation of the save"
    silent: list[str] = []
    for number, case in enumerate(cases):
        code, said = int(case.with_suffix(".code").read_text()), case.with_suffix(".err").read_text()
        run = case / "run"
        assert not torn(run / "checkpoints"), case.name
        assert checkpoints_in(run / "checkpoints")[-1][0] >= 20, case.name
        if code == 0:  # the making of a folder that is there, or a rename that had another way
            silent.append(case.name)
            assert_equal(unbroken, run)
            continue
        assert code == 5, f"{case.name}: {code}\n{said}"
        (line,) = [line for line in said.splitlines() if line.startswith("error:")]
        assert " free" in line, line
        assert "Traceback" not in said
        assert not list((run / "checkpoints").glob(".*")) or case.name.endswith("from_then_on"), case.name
        if torture or number % 15 == 0:
            warm.run("train", "resume=run", cwd=case)
            assert_equal(unbroken, run)
    assert len(silent) < len(cases) / 4, silent


# ---- disks


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A filesystem of its own with half a megabyte; mounting takes root."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here; tests/checkpoints fills one up by RLIMIT_FSIZE")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_full_for_real_keeps_what_was_saved(warm: Warm, tmp_path: Path, small_disk: Path) -> None:
    words = [*RUN, "trainer.keep_checkpoints=100", "model.n_embd=32"]
    said = warm.run("train", *words, cwd=small_disk, code=5)
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    found = re.search(r"([\d,]+) bytes needed, ([\d,]+) free", line)
    assert found, line
    needed, free = (int(number.replace(",", "")) for number in found.groups())
    assert free < needed < 1_000_000
    run = small_disk / "run"
    assert not torn(run / "checkpoints")
    assert not list((run / "checkpoints").glob(".*"))
    last = find(run / "checkpoints", "latest").name
    # with room again it goes on
    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    assert read_run(run)["status"] in ("RUNNING", "FAILED")
    warm.run("train", "resume=run", cwd=small_disk)
    assert int(last.removeprefix("step-")) < 120
    warm.run("train", *words, cwd=tmp_path)
    assert_equal(tmp_path / "run", run)


def test_temporary_files_of_a_whole_run_stand_beside_their_target(
    warm: Warm, unbroken: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """With TMPDIR on another filesystem no rename goes from there to here, and nothing of a checkpoint is in it."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    if elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is only one filesystem here")
    kill = """
import os, sys
def heard(event, args):
    if event in ("os.rename", "open") and isinstance(args[0], str) and args[0].startswith(os.environ["TMPDIR"]):
        if event == "os.rename" or "w" in str(args[1]) or ".safetensors" in args[0]:
            os._exit(77)
sys.addaudithook(heard)
"""
    warm.run("train", *RUN, cwd=tmp_path, before=kill, env={"TMPDIR": str(elsewhere)})
    assert_equal(unbroken, tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_found_before_the_first_step(warm: Warm, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    said = warm.run("train", *RUN, cwd=tmp_path, code=5)
    assert "step " not in said
    assert said.count("error:") == 1


def test_a_read_only_disk_is_found_before_the_first_step(warm: Warm, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    said = warm.run("train", *RUN, cwd=small_disk, code=5)
    assert "Read-only" in said
    assert "step " not in said
