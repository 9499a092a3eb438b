"""A run that was stopped, however it was stopped, ends with the bits of the run that never was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from microgpt.checkpoints.folder import checkpoints_in, find
from microgpt.config.compose import compose
from microgpt.runs.folder import read_metrics, read_run
from microgpt.runs.start import started
from microgpt.training.run import chosen_before

CLOCKS = ("perf/", "progress/eta")
RUN = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"),
    *("model.dropout=0.1", "data.batch_size=4", "trainer.accumulate=3", "trainer.max_steps=60"),
    *(
        "trainer.eval_interval=20",
        "trainer.checkpoint_interval=15",
        "trainer.patience=50",
        "trainer.steps_per_call=7",
    ),
    *("trainer.keep_checkpoints=100", "optimizer.ema_decay=0.9", "tracking=off", "device.threads=1"),
    "sampling.num_samples=1",
]


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "microgpt.train", *(words or [*RUN, f"hydra.run.dir={folder}"])]


def steps_logged(folder: Path) -> int:
    try:
        return max(
            (json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()), default=0
        )
    except (FileNotFoundError, ValueError):
        return 0


def stopped_at(folder: Path, step: int, number: signal.Signals) -> int:
    """Start a run, send it a signal once it has logged a step, and return its exit code."""
    process = subprocess.Popen(
        command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder.parent
    )
    deadline = time.monotonic() + 240
    while process.poll() is None and time.monotonic() < deadline:
        if steps_logged(folder) >= step:
            process.send_signal(number)
            break
        time.sleep(0.001)
    return process.wait(180)


def resumed(folder: Path, *words: str) -> str:
    done = subprocess.run(
        command(folder, f"resume={folder}", *words), capture_output=True, text=True, cwd=folder.parent, timeout=240
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_equal(a: Path, b: Path) -> None:
    last = find(a / "checkpoints", "latest").name
    for name in ("weights.safetensors", "optimizer.safetensors"):
        left, right = (run / "checkpoints" / last / name for run in (a, b))
        assert left.read_bytes() == right.read_bytes(), f"{name} differs"
    left_metrics, right_metrics = read_metrics(a), read_metrics(b)
    for key in left_metrics:
        if not key.startswith(CLOCKS):
            assert left_metrics[key] == right_metrics[key], key
    assert read_run(a)["best_val_loss"] == read_run(b)["best_val_loss"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unbroken") / "run"
    subprocess.run(command(folder), check=True, capture_output=True, cwd=folder.parent, timeout=240)
    return folder


# With spans of 7 steps and three micro-batches a step almost any moment lies inside an accumulation window; 16 is
# just after a checkpoint in mid-epoch, 20 just after a validation and the end of Lightning's epoch, 37 in the middle.
@pytest.mark.slow
@pytest.mark.parametrize("step", [16, 20, 37])
def test_killed_runs_resume_to_equal_bits(unbroken: Path, tmp_path: Path, step: int) -> None:
    folder = tmp_path / "run"
    assert stopped_at(folder, step, signal.SIGKILL) == -signal.SIGKILL
    assert checkpoints_in(folder / "checkpoints"), "at most one interval is lost"
    assert "resumed at step" in resumed(folder)
    assert_equal(unbroken, folder)


@pytest.mark.slow
@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_save_and_resume_to_equal_bits(
    unbroken: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    folder = tmp_path / "run"
    assert stopped_at(folder, 16, number) == code
    assert read_run(folder)["status"] == "KILLED"
    saved = checkpoints_in(folder / "checkpoints")[-1][0]
    assert saved >= steps_logged(folder), "a signal loses no step"
    resumed(folder)
    assert_equal(unbroken, folder)


@pytest.mark.slow
def test_from_run_trains_the_same_bits_again(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "again"
    words = [f"from_run={unbroken}", f"hydra.run.dir={folder}"]
    subprocess.run(command(folder, *words), check=True, capture_output=True, cwd=tmp_path, timeout=240)
    assert_equal(unbroken, folder)


@pytest.mark.slow
def test_another_number_of_workers_gives_the_same_batches(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    stopped_at(folder, 20, signal.SIGKILL)
    resumed(folder, "data.workers=2")
    assert_equal(unbroken, folder)


@pytest.mark.slow
def test_an_extended_run_goes_on_without_a_jump_in_learning_rate(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    subprocess.run(command(folder), check=True, capture_output=True, cwd=tmp_path, timeout=240)
    said = " ".join(resumed(folder, "trainer.additional_steps=20").split())
    assert "20 more steps after step 60" in said
    rates = read_metrics(folder)["train/lr"]
    assert max(rates) == 80
    peak = max(rates.values())
    jumps = [abs(rates[s + 1] - rates[s]) / peak for s in range(59, 79)]
    assert max(jumps) < 0.3, jumps  # the warm-up of two steps to half of the peak is the steepest part
    assert [read_metrics(unbroken)["train/loss"][s] for s in (1, 60)] == [
        read_metrics(folder)["train/loss"][s] for s in (1, 60)
    ]


@pytest.mark.slow
def test_resuming_with_other_settings_is_refused_naming_all(unbroken: Path, tmp_path: Path) -> None:
    words = [f"resume={unbroken}", "model.n_embd=32", "optimizer.learning_rate=0.1"]
    done = subprocess.run(command(tmp_path, *words), capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 4
    assert "model.n_embd" in done.stderr
    assert "optimizer.learning_rate" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_a_job_that_is_started_again_with_resume_auto_goes_on_where_it_stands(unbroken: Path, tmp_path: Path) -> None:
    folder = tmp_path / "job"
    words = [*RUN, "resume=auto", f"hydra.run.dir={folder}"]
    job = subprocess.Popen(command(folder, *words), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    deadline = time.monotonic() + 240
    while job.poll() is None and steps_logged(folder) < 20 and time.monotonic() < deadline:
        time.sleep(0.001)
    job.send_signal(signal.SIGTERM)
    _, said = job.communicate(timeout=240)
    assert "starting a fresh one" in said
    assert job.returncode == 143
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert "resumed at step" in done.stdout + done.stderr
    assert_equal(unbroken, folder)
    assert not list((tmp_path / "outputs").glob("2*")), "no second folder"


@pytest.mark.slow
def test_resuming_nothing_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path, "resume=latest"), capture_output=True, text=True, cwd=tmp_path, timeout=240
    )
    assert done.returncode == 4
    assert not (tmp_path / "outputs").exists()


@pytest.mark.slow
def test_what_was_chosen_for_another_device_is_chosen_again_and_what_was_given_is_not(
    unbroken: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(unbroken, run)

    def kept(device: str, *words: str) -> tuple[list[str], str, str]:
        start = started(compose([f"resume={run}", *words]), [f"resume={run}", *words], tmp_path)
        chosen = chosen_before(start, list(words), device)
        return chosen, start.config.device.compile, start.config.device.precision

    both = ["compile", "precision"]
    facts = read_run(run)
    assert facts["chosen"] == {"compile": "off", "precision": "f32"}
    assert kept("cpu") == (both, "off", "f32")
    assert kept("cuda") == (both, "auto", "auto")
    assert kept("cuda", "device.precision=f32") == (["compile"], "auto", "f32")
    # as it stands after it went on on a GPU: there it keeps what was chosen there, whatever its config says
    moved = {**facts, "device": "cuda", "chosen": {"compile": "on", "precision": "auto"}}
    (run / "run.json").write_text(json.dumps(moved))
    assert kept("cuda") == (both, "on", "auto")
    assert kept("cpu") == (both, "auto", "auto")
    (run / "run.json").write_text(json.dumps({**facts, "chosen": {}}))
    assert kept("cuda") == ([], "off", "f32")


@pytest.mark.slow
def test_resuming_on_changed_data_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("\n".join(f"line {i} of some text" for i in range(300)))
    folder = tmp_path / "run"
    small = [w for w in RUN if not w.startswith("data=")]
    words = [*small, f"data.path={data}", f"hydra.run.dir={folder}", "trainer.max_steps=5"]
    subprocess.run(command(folder, *words), check=True, capture_output=True, cwd=tmp_path, timeout=240)
    data.write_text("something else\n" * 3 + "and more\n" * 4)
    words = [f"resume={folder}", "trainer.additional_steps=5"]
    done = subprocess.run(command(folder, *words), capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 3
    assert "changed" in done.stderr


@pytest.mark.slow
def test_a_second_run_in_one_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    first = subprocess.Popen(
        command(folder, *RUN, f"hydra.run.dir={folder}", "trainer.max_steps=100000"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=tmp_path,
    )
    try:
        while not steps_logged(folder):
            time.sleep(0.02)
            assert first.poll() is None
        done = subprocess.run(command(folder), capture_output=True, text=True, cwd=tmp_path, timeout=240)
        assert done.returncode == 7
        assert f"pid {first.pid}" in done.stderr
        assert os.uname().nodename in done.stderr
    finally:
        first.kill()
        first.wait()
    done = subprocess.run(command(folder), capture_output=True, text=True, cwd=tmp_path, timeout=240)
    assert done.returncode == 2, "the dead run's lock is free, but its results are not written over"
    assert "resume=" in done.stderr
