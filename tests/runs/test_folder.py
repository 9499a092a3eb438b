"""The run folder is the ground truth: what was logged is read back, whole lines only, whatever happened."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from microgpt.errors import BusyError, DiskError, ModelError
from microgpt.files import FolderLock, is_locked
from microgpt.runs.folder import (
    EVAL_COLUMNS,
    METRICS,
    RunFolder,
    read_config,
    read_lines,
    read_metrics,
    read_rows,
    read_run,
)


def test_metrics_come_back_as_they_were_logged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log_metrics(1, {"train/loss": 0.1 + 0.2, "perf/n": 7})
    folder.log_metrics(2, {"train/loss": 5e-324})
    folder.close()
    assert read_metrics(tmp_path) == {"train/loss": {1: 0.1 + 0.2, 2: 5e-324}, "perf/n": {1: 7.0}}


def test_nan_and_infinities_come_back_and_the_file_is_json(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log_metrics(1, {"a": math.nan, "b": math.inf, "c": -math.inf})
    found = read_metrics(tmp_path)
    assert math.isnan(found["a"][1])
    assert (found["b"][1], found["c"][1]) == (math.inf, -math.inf)
    text = (tmp_path / METRICS).read_text()
    json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_the_last_value_of_a_key_and_step_counts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step, value in ((1, 3.0), (2, 2.0), (3, 1.0), (2, 2.5), (3, 1.5)):  # killed after 3, resumed from 1
        folder.log_metrics(step, {"loss": value})
    assert read_metrics(tmp_path) == {"loss": {1: 3.0, 2: 2.5, 3: 1.5}}


def test_a_line_is_there_for_readers_as_soon_as_it_is_logged(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for step in range(3):
        folder.log_metrics(step, {"loss": 1.0})
        assert len(list(read_lines(tmp_path / METRICS))) == step + 1


WRITER = """
import sys
from pathlib import Path
from microgpt.runs.folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
print("ready", flush=True)
for step in range(1, 3001):
    folder.log_metrics(step, {f"key{i}": step + i / 10 for i in range(step % 40 * 15 + 1)})
"""


def test_who_reads_while_another_process_writes_sees_whole_lines_only(tmp_path: Path) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    offset, steps = 0, list[int]()
    while True:
        done = writer.poll() is not None
        for behind, line in read_lines(tmp_path / METRICS, offset):
            offset, step = behind, line["step"]
            assert line["metrics"] == {f"key{i}": step + i / 10 for i in range(step % 40 * 15 + 1)}
            steps.append(step)
        if done:
            break
    assert writer.returncode == 0
    assert steps == list(range(1, 3001))  # each once, in order, none lost between two looks


def test_rows_are_read_on_from_where_the_last_look_ended(tmp_path: Path) -> None:
    path = tmp_path / "system.csv"
    assert list(read_rows(path)) == []
    path.write_text("step,cpu")
    assert list(read_rows(path)) == []  # not even the header is whole
    path.write_text("step,cpu\n1,10.0\n2,20")
    [(behind, row)] = read_rows(path)
    assert row == {"step": "1", "cpu": "10.0"}
    path.write_text("step,cpu\n1,10.0\n2,20.5\ntorn\n3,30.0\n")
    assert [row for _, row in read_rows(path, behind)] == [
        {"step": "2", "cpu": "20.5"},
        {"step": "3", "cpu": "30.0"},
    ]


@pytest.mark.parametrize("torn", [b'{"step": 2, "metr', b"{", b'{"step": 2, "metrics": {"loss": 9.0}}', b"\xc3"])
def test_a_torn_last_line_is_closed_and_costs_only_itself(tmp_path: Path, torn: bytes) -> None:
    folder = RunFolder(tmp_path)
    folder.log_metrics(1, {"loss": 1.0})
    folder.close()
    with open(tmp_path / METRICS, "ab") as file:
        file.write(torn)
    assert read_metrics(tmp_path)["loss"] == {1: 1.0}
    again = RunFolder(tmp_path)
    again.log_metrics(3, {"loss": 3.0})
    found = read_metrics(tmp_path)["loss"]
    assert (found[1], found[3]) == (1.0, 3.0)


def test_closing_a_torn_line_adds_nothing_to_whole_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "whole").write_bytes(b"a\n")
    folder = RunFolder(tmp_path)
    for name in ("empty", "whole", "new"):
        folder.append(name, "b")
    assert [(tmp_path / n).read_bytes() for n in ("empty", "whole", "new")] == [b"b\n", b"a\nb\n", b"b\n"]


@pytest.mark.parametrize(
    "line",
    [
        b"", b"nonsense", b"[]", b"null", b"{}", b'{"step": 2}', b'{"step": null, "metrics": {"loss": 2}}',
        b'{"step": 2, "metrics": []}', b'{"step": 2, "metrics": {"loss": "much"}}', b"\xff\xfe\x00",
        b'{"step": 2, "metrics": {"loss": null}}', b'{"step": 1e999, "metrics": {"loss": 2}}',
        b"[" * 100_000, b'{"step": ' + b"9" * 10_000 + b', "metrics": {}}',
        b'{"step": 2, "metrics": {"loss": ' + b"9" * 4_000 + b"}}",
    ],
    ids=range(15),
)  # fmt: skip
def test_a_damaged_line_costs_only_itself(tmp_path: Path, line: bytes) -> None:
    good = [b'{"step": 1, "metrics": {"loss": 1}}', line, b'{"step": 3, "metrics": {"loss": 3}}']
    (tmp_path / METRICS).write_bytes(b"\n".join(good) + b"\n")
    assert read_metrics(tmp_path) == {"loss": {1: 1.0, 3: 3.0}}


def test_a_run_without_metrics_has_none(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == {}


def test_killed_at_random_moments_every_line_but_the_last_is_kept(tmp_path: Path) -> None:
    draw = random.Random(0)
    for number in range(4):
        path = tmp_path / str(number)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(draw.uniform(0.0, 0.1))
        writer.kill()
        writer.wait()
        steps = [line["step"] for _, line in read_lines(path / METRICS)]
        assert steps == list(range(1, len(steps) + 1))


# ---- run.json, config.yaml, CSV


def test_facts_are_added_and_replaced(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "run")
    folder.update(status="RUNNING", name="é")
    assert folder.update(status="FINISHED", n=1) == {"status": "FINISHED", "name": "é", "n": 1}
    assert read_run(folder.path) == {"status": "FINISHED", "name": "é", "n": 1}
    assert sorted(p.name for p in folder.path.iterdir()) == ["run.json"]


def test_a_fact_that_is_no_json_leaves_the_old_ones(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.update(a=1)
    with pytest.raises(ValueError):
        folder.update(b=math.nan)
    assert read_run(tmp_path) == {"a": 1}


def test_the_config_comes_back(tmp_path: Path) -> None:
    config = {"name": "é", "model": {"n_layer": 2, "tied": False, "x": None}, "data": {"path": ["a", "b: c"]}}
    RunFolder(tmp_path).write_config(config)
    assert read_config(tmp_path) == config


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"a: [", b"!!python/object/apply:os.getcwd []"])
def test_a_damaged_config_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(ModelError, match=r"config\.yaml is damaged"):
        read_config(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_record_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(ModelError, match=r"run\.json is damaged"):
        read_run(tmp_path)


def test_what_is_no_run_folder_is_one_line(tmp_path: Path) -> None:
    for read in (read_run, read_config):
        with pytest.raises(ModelError, match="no run folder"):
            read(tmp_path)


def test_a_csv_has_its_header_once_also_after_a_resume(tmp_path: Path) -> None:
    for step in (1, 2):
        folder = RunFolder(tmp_path)
        folder.log_row("eval.csv", EVAL_COLUMNS, {"step": step, "val_loss": 2.5})
        folder.close()
    lines = (tmp_path / "eval.csv").read_text().splitlines()
    assert lines[0] == ",".join(EVAL_COLUMNS)
    rows = [dict(zip(EVAL_COLUMNS, line.split(","), strict=True)) for line in lines[1:]]
    assert [(row["step"], row["val_loss"], row["train_loss"]) for row in rows] == [("1", "2.5", ""), ("2", "2.5", "")]


def test_a_folder_that_cannot_be_written_is_found_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(DiskError, match="cannot write"):
            RunFolder(path)


def test_a_full_disk_while_logging_is_a_disk_error_and_leaves_whole_lines(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from microgpt.errors import guarded; from microgpt.runs.folder import RunFolder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2000, resource.RLIM_INFINITY))\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "sys.exit(guarded(lambda: [folder.log_metrics(i, {'loss': 1.0}) for i in range(100)]))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 5
    assert done.stderr.startswith("error: no space to write")
    assert done.stderr.count("\n") == 1
    steps = [line["step"] for _, line in read_lines(tmp_path / METRICS)]
    assert len(steps) > 10
    assert steps == list(range(len(steps)))


# ---- T17: one process a folder

HOLDER = """
import sys, time
from pathlib import Path
from microgpt.files import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
time.sleep(60)
"""
SECOND = """
import sys
from pathlib import Path
from microgpt.errors import guarded
from microgpt.files import FolderLock
sys.exit(guarded(lambda: FolderLock(Path(sys.argv[1]))))
"""


def held_by_another(path: Path) -> subprocess.Popen[str]:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    return holder


def test_a_second_process_is_refused_naming_pid_and_host(tmp_path: Path) -> None:
    holder = held_by_another(tmp_path)
    try:
        done = subprocess.run(
            [sys.executable, "-c", SECOND, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 7
        assert done.stderr.count("\n") == 1
        assert f"pid {holder.pid} on {os.uname().nodename}" in done.stderr
        assert str(tmp_path) in done.stderr
        with pytest.raises(BusyError):
            FolderLock(tmp_path)
        assert is_locked(tmp_path)
    finally:
        holder.kill()
        holder.wait()


def test_the_lock_of_a_dead_process_frees_itself(tmp_path: Path) -> None:
    holder = held_by_another(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert not is_locked(tmp_path)
    lock = FolderLock(tmp_path)
    assert (tmp_path / ".lock").read_text() == f"pid {os.getpid()} on {os.uname().nodename}"
    lock.close()


def test_a_lock_that_is_given_back_can_be_taken_again(tmp_path: Path) -> None:
    first = FolderLock(tmp_path)
    with pytest.raises(BusyError):
        FolderLock(tmp_path)
    first.close()
    FolderLock(tmp_path).close()
    assert not is_locked(tmp_path)
    assert not is_locked(tmp_path / "nothing")


def test_who_only_asks_whether_a_folder_is_held_never_makes_it_look_held(tmp_path: Path) -> None:
    FolderLock(tmp_path).close()
    code = (
        "import sys; from pathlib import Path; from microgpt.files import is_locked\n"
        "print('asking', flush=True)\nwhile True: is_locked(Path(sys.argv[1]))"
    )
    asking = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert asking.stdout is not None
    asking.stdout.readline()
    try:
        for _ in range(2000):
            FolderLock(tmp_path).close()
    finally:
        asking.kill()
        asking.wait()


def test_a_lock_in_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError):
        FolderLock(tmp_path / "file" / "run")


def test_a_waiting_lock_lets_one_in_at_a_time(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from microgpt.files import waiting_lock\n"
        "p = Path(sys.argv[1])\n"
        "for _ in range(20):\n"
        "    with waiting_lock(p / 'lock'):\n"
        "        n = int((p / 'n').read_text()); time.sleep(0.001); (p / 'n').write_text(str(n + 1))"
    )
    (tmp_path / "n").write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(3)]
    assert [worker.wait() for worker in workers] == [0, 0, 0]
    assert (tmp_path / "n").read_text() == "60"


def test_opening_a_run_folder_leaves_nothing_in_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []
    assert folder.checkpoints == tmp_path / "run" / "checkpoints"
