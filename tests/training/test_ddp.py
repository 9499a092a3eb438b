"""Several processes train as one would: the same rows, losses and files; they stop, resume and end together."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from microgpt.checkpoints.folder import checkpoints_in, find
from microgpt.errors import UsageError
from microgpt.runs.folder import read_metrics, read_run
from microgpt.training.ranks import divided

if TYPE_CHECKING:
    from warm import Child, Warm

    Start = Callable[..., list[Child]]

NEAR = 1e-6
RUN = [
    *("model.n_layer=1", "model.n_embd=16", "data.batch_size=4", "trainer.accumulate=3"),
    *("trainer.max_steps=8", "trainer.eval_interval=4", "trainer.eval_batches=5", "trainer.checkpoint_interval=4"),
    *("trainer.keep_checkpoints=100", "trainer.steps_per_call=3", "sampling.num_samples=1"),
    *("sampling.max_new_tokens=4", "tracking=off", "device.threads=1", "tokenizer=char"),
]
NAMES = [*RUN, "data=names", "model.block_size=32", "optimizer.ema_decay=0.9"]
CHAT = [*RUN, "data=conversations", "model.block_size=96"]  # targets are replies: few in one row, many in the next
ENDLESS = ["trainer.max_steps=1000000", "trainer.eval_interval=500000", "trainer.checkpoint_interval=0"]
TWO = ["device=ddp", "device.accelerator=cpu"]


def ended(children: list[Child]) -> list[int]:
    """The exit codes of all."""
    return [child.wait() for child in children]


def assert_near(expected: Path, run: Path) -> None:
    """All that is logged of each step and validation, and the last weights, are the same within 1e-6."""
    left, right = read_metrics(expected), read_metrics(run)
    assert set(left) == set(right)
    for key in ("train/loss", "train/grad_norm", "val/loss", "progress/tokens", "train/lr"):
        assert left[key].keys() == right[key].keys(), key
        for step, value in left[key].items():
            assert right[key][step] == pytest.approx(value, abs=NEAR), f"{key} at {step}"
    from safetensors.numpy import load_file

    a, b = (load_file(find(r / "checkpoints", "latest") / "weights.safetensors") for r in (expected, run))
    assert set(a) == set(b)
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=1e-4, err_msg=name)


@pytest.fixture(scope="module")
def home(warm: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two runs of one process: `names` and `chat`."""
    made = tmp_path_factory.mktemp("ranks")
    warm.run("train", *NAMES, "device=cpu", "hydra.run.dir=names", cwd=made)
    warm.run("train", *CHAT, "device=cpu", "hydra.run.dir=chat", cwd=made)
    return made


def test_rows_of_a_step_are_divided_and_never_changed() -> None:
    assert divided(4, 3, 1) == (4, 3)
    assert divided(4, 3, 2) == (2, 3)  # rows, where micro-batches do not divide
    assert divided(4, 6, 2) == (4, 3)  # micro-batches first: large ones are quicker
    assert divided(4, 6, 4) == (2, 3)
    for world in (1, 2, 3, 4, 6, 12):
        rows, accumulate = divided(4, 3, world)
        assert rows * accumulate * world == 12
    with pytest.raises(UsageError, match=r"12|4 x trainer.accumulate=3"):
        divided(4, 3, 5)


@pytest.mark.slow
@pytest.mark.parametrize("data, device", [("names", "ddp"), ("chat", "ddp"), ("chat", "fsdp"), ("names", "fsdp")])
def test_two_processes_give_the_losses_of_one(home: Path, start: Start, data: str, device: str) -> None:
    words = NAMES if data == "names" else CHAT
    folder = home / f"{data}-{device}"
    children = start(2, *words, *TWO, f"device={device}", f"hydra.run.dir={folder.name}", cwd=home)
    assert ended(children) == [0, 0], [c.said for c in children]
    assert "Traceback" not in "".join(c.said for c in children)
    assert not children[1].said, "only the first process talks"
    assert_near(home / data, folder)
    timed = {"system.csv"}  # there once a run has taken five seconds
    assert {p.name for p in folder.iterdir()} - timed == {p.name for p in (home / data).iterdir()} - timed
    assert read_run(folder)["processes"] == 2
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == len(
        (home / data / "metrics.jsonl").read_text().splitlines()
    ), "one process writes"
    for step, path in checkpoints_in(folder / "checkpoints"):
        there = json.loads((path / "MANIFEST.json").read_text())["files"]
        same = json.loads((home / data / "checkpoints" / path.name / "MANIFEST.json").read_text())["files"]
        assert set(there) == set(same), step


@pytest.mark.slow
@pytest.mark.parametrize("device", ["ddp", "fsdp"])
def test_a_run_goes_on_with_another_number_of_processes(home: Path, start: Start, warm: Warm, device: str) -> None:
    """One process, two from its fourth step, one again from the sixth: as the run that was never stopped."""
    folder = home / f"changing-{device}"
    copied = subprocess.run(["cp", "-r", str(home / "names"), str(folder)], check=False)
    assert copied.returncode == 0
    at = folder / "checkpoints" / "step-000004"
    before = read_metrics(home / "names")
    words = [f"resume={at}", f"device={device}", "device.accelerator=cpu", "trainer.checkpoint_interval=6"]
    children = start(2, *words, cwd=home)
    assert ended(children) == [0, 0], [c.said for c in children]
    assert_near(home / "names", folder)
    warm.run("train", f"resume={folder / 'checkpoints' / 'step-000006'}", "device=cpu", cwd=home)
    assert_near(home / "names", folder)
    assert read_metrics(folder)["train/loss"].keys() == before["train/loss"].keys()


def steps_in(folder: Path) -> int:
    return len((folder / "metrics.jsonl").read_bytes().splitlines()) if (folder / "metrics.jsonl").exists() else 0


def wait_for_steps(folder: Path, children: list[Child]) -> None:
    deadline = time.monotonic() + 180
    while steps_in(folder) < 2:
        assert time.monotonic() < deadline, [c.said for c in children]
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.parametrize(
    "number, receivers, code",
    [("SIGTERM", (0,), 143), ("SIGTERM", (0, 1), 143), ("SIGINT", (0, 1), 130)],
)
def test_a_signal_to_one_or_all_saves_once_and_ends_all(
    home: Path, start: Start, number: str, receivers: tuple[int, ...], code: int
) -> None:
    folder = home / f"stopped-{number}-{len(receivers)}"
    children = start(2, *NAMES, *ENDLESS, *TWO, f"hydra.run.dir={folder.name}", cwd=home)
    wait_for_steps(folder, children)
    for rank in receivers:
        children[rank].signal(getattr(signal, number))
    assert ended(children) == [code, code], [c.said for c in children]
    assert read_run(folder)["status"] == "KILLED"
    assert checkpoints_in(folder / "checkpoints")[-1][0] == max(read_metrics(folder)["train/loss"])
    assert "".join(c.said for c in children).count("stopped: ") == 1


@pytest.mark.slow
def test_a_process_that_dies_ends_the_others_with_one_line(home: Path, start: Start) -> None:
    folder = home / "died"
    children = start(2, *NAMES, *ENDLESS, *TWO, f"hydra.run.dir={folder.name}", cwd=home)
    wait_for_steps(folder, children)
    children[1].signal(signal.SIGKILL)
    began = time.monotonic()
    assert ended(children) == [1, -9]
    assert time.monotonic() - began < 60
    (line,) = [one for one in children[0].said.splitlines() if one.startswith("error: ")]
    assert "another process of the run has ended" in line
    assert "Traceback" not in children[0].said
    assert read_run(folder)["status"] == "FAILED"


@pytest.mark.slow
def test_a_refusal_is_said_once_and_all_end_with_its_code(home: Path, start: Start) -> None:
    children = start(2, *NAMES, *TWO, "data.batch_size=3", "hydra.run.dir=odd", cwd=home)
    assert ended(children) == [2, 2]
    said = "".join(c.said for c in children)
    assert said.count("error: ") == 1, said
    assert "data.batch_size=3" in said
    children = start(2, *NAMES, "device=cpu", "hydra.run.dir=alone", cwd=home)
    assert ended(children) == [2, 2]
    assert "add device=ddp" in children[0].said


def launched(folder: Path, *words: str, tracking: str = "off", steps: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """`python -m microgpt.train device=ddp` as a user types it, which starts its own processes."""
    given = {w.partition("=")[0]: w for w in [*NAMES, *TWO, "device.devices=2", f"tracking={tracking}", *steps]}
    return subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", *words, *given.values()],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_trials_of_a_sweep_start_their_own_processes(home: Path) -> None:
    """The whole way of a user: the launcher, two trials of two processes, one MLflow run each, under one parent."""
    process = launched(home, "-m", "seed=42,7", "hydra.sweep.dir=sweep", tracking="mlflow")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, out + err
    assert_near(home / "names", home / "sweep" / "0")
    assert read_run(home / "sweep" / "1")["processes"] == 2
    assert "-m" in read_run(home / "sweep" / "1")["command"].split(), "what the user typed"
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{home}/mlruns/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("microgpt").experiment_id])  # type: ignore[union-attr]
    assert sorted(r.data.tags.get("microgpt.kind", "trial") for r in runs) == ["sweep", "trial", "trial"]
    assert {r.info.status for r in runs} == {"FINISHED"}


@pytest.mark.slow
def test_the_launcher_passes_a_signal_on_and_tells_of_a_process_that_was_killed(home: Path) -> None:
    import psutil

    for number, expected, word in ((signal.SIGTERM, 143, "stopped: "), (signal.SIGKILL, 1, "error: ")):
        folder = home / f"launched-{expected}"
        process = launched(home, f"hydra.run.dir={folder.name}", steps=tuple(ENDLESS))
        deadline = time.monotonic() + 180
        while steps_in(folder) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        children = psutil.Process(process.pid).children()
        assert len(children) == 2
        (process if number == signal.SIGTERM else children[1]).send_signal(number)
        _, err = process.communicate(timeout=120)
        assert process.returncode == expected, err
        assert err.count(word) == 1, err
        assert "Traceback" not in err
        _, alive = psutil.wait_procs(children, timeout=30)
        assert not alive, "no process is left behind"
