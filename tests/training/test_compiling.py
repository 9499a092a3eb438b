"""Whether a run is compiled is decided by its length alone; a compiled run has an eager one's losses, and resumes."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from microgpt import runtime
from microgpt.checkpoints.folder import find
from microgpt.config.auto import resolved_shape
from microgpt.config.compose import compose
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.runs.folder import read_metrics, read_run
from microgpt.training.compiling import compile_seconds, planned
from waiting import until

COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")
RUN = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32", "seed=3"),
    *("data.batch_size=4", "trainer.max_steps=40", "trainer.eval_interval=10", "tracking=off", "device.threads=1"),
    *("sampling.num_samples=1", "sampling.max_new_tokens=4"),
]


def config(*words: str) -> TrainConfig:
    return resolved_shape(compose(["device.threads=1", *words]), 10**6)


@COMPILER
def test_a_long_run_is_compiled_and_a_short_one_is_not() -> None:
    short = planned(10**6, config(), 10, "cpu")
    long = planned(10**6, config(), 10**6, "cpu")
    assert (short.compiled, long.compiled) == (False, True)
    assert short.seconds < compile_seconds(config())
    assert planned(10**6, config("device.compile=off"), 10**6, "cpu").seconds > long.seconds
    assert planned(10**6, config("device.compile=on"), 10, "cpu").compiled
    assert not planned(10**6, config(), 10**6, "mps").compiled


@COMPILER
def test_it_pays_sooner_where_the_cpu_multiplies_bf16_and_later_the_more_there_is_to_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def shortest(*words: str) -> int:
        chosen = config(*words)
        return next(n for n in range(0, 10**5, 10) if planned(10**6, chosen, n, "cpu").compiled)

    monkeypatch.setattr(runtime, "multiplies_bf16", lambda: True)
    low = shortest()
    assert shortest("device.precision=f32") > 1.5 * low
    assert shortest("model.n_layer=24") > 1.5 * low
    monkeypatch.setattr(runtime, "multiplies_bf16", lambda: False)
    assert shortest() == shortest("device.precision=f32")
    on_gpu = [planned(10**6, config(*words), 10**6, "cuda").why for words in ((), ("model.n_layer=24",))]
    assert on_gpu[0] == on_gpu[1], "a GPU has no chunks to compile"


def test_without_a_compiler_it_is_said_and_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    plan = planned(10**6, config(), 10**6, "cpu")
    assert not plan.compiled
    assert "C++ compiler" in plan.why
    with pytest.raises(UsageError, match=r"C\+\+ compiler"):
        planned(10**6, config("device.compile=on"), 10, "cpu")


def afresh(folder: Path, **more: str) -> dict[str, str]:
    """An environment in which nothing has been compiled."""
    for name in ("cache", "tmp"):
        (folder / name).mkdir()
    found = {**os.environ, "MICROGPT_CACHE_DIR": str(folder / "cache"), "TMPDIR": str(folder / "tmp"), **more}
    return {name: value for name, value in found.items() if name != "TORCHINDUCTOR_CACHE_DIR"}


def put_compiler(folder: Path, script: str) -> str:
    """A g++ of our own, and the PATH that has it first."""
    path = folder / "g++"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def test_a_compiler_that_cannot_make_what_is_needed_is_found_out_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    said = "<stdin>:1:10: fatal error: Python.h: No such file or directory"
    monkeypatch.setenv("PATH", put_compiler(tmp_path, f"echo 'compilation begins\n{said}' >&2; exit 1"))
    plan = planned(10**6, config(), 10**6, "cpu")
    assert not plan.compiled
    assert plan.why == f"the C++ compiler fails: {said}"
    with pytest.raises(UsageError, match=r"Python\.h.*device\.compile=off"):
        planned(10**6, config("device.compile=on"), 10, "cpu")


@COMPILER
@pytest.mark.slow
def test_a_compiler_that_fails_in_the_run_is_one_line(tmp_path: Path) -> None:
    """As it does where the disk is full; the run says what to do, and can be gone on with."""
    fails = 'case "$*" in *.main.cpp*) echo "it begins"; echo "x.cpp:3: fatal error: no space" ; exit 1;; esac'
    path = put_compiler(tmp_path, f'{fails}\nexec {shutil.which("g++")} "$@"')
    done = subprocess.run(
        [sys.executable, "-m", "microgpt.train", *RUN, "device.compile=on", f"hydra.run.dir={tmp_path / 'run'}"],
        cwd=tmp_path, env=afresh(tmp_path, PATH=path),
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "error: the model could not be compiled: x.cpp:3: fatal error: no space"
        " - take device.compile=off, beside resume= where steps were saved"
    )
    assert read_run(tmp_path / "run")["status"] == "FAILED"


def trained(folder: Path, *words: str, stop_at: int | None = None) -> None:
    """A whole training in a process; with `stop_at` it is killed once it has logged that step."""
    command = [sys.executable, "-m", "microgpt.train", *words]
    process = subprocess.Popen(command, cwd=folder.parent, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 300
    while stop_at is not None and process.poll() is None and time.monotonic() < deadline:
        metrics = folder / "metrics.jsonl"
        if metrics.exists() and f'"step": {stop_at},' in metrics.read_text():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.001)
    _, said = process.communicate(timeout=300)
    assert process.returncode in (0, -signal.SIGKILL), said.decode()


@COMPILER
@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_an_eager_one_and_resumes_bit_by_bit(tmp_path: Path) -> None:
    assert os.environ.get("MICROGPT_CACHE_DIR"), "the tests share one cache, so that this compiles once"
    runs = {name: tmp_path / name for name in ("eager", "f32", "whole", "broken")}
    trained(runs["eager"], *RUN, "device.compile=off", f"hydra.run.dir={runs['eager']}")
    trained(runs["f32"], *RUN, "device.compile=on", "device.precision=f32", f"hydra.run.dir={runs['f32']}")
    trained(runs["whole"], *RUN, "device.compile=on", f"hydra.run.dir={runs['whole']}")
    trained(runs["broken"], *RUN, "device.compile=on", f"hydra.run.dir={runs['broken']}", stop_at=25)
    trained(runs["broken"], f"resume={runs['broken']}")
    losses = {name: read_metrics(folder)["train/loss"] for name, folder in runs.items()}
    assert losses["whole"] == losses["broken"]
    assert losses["f32"] == pytest.approx(losses["eager"], abs=2e-3)
    assert losses["f32"] != losses["eager"], "nothing was compiled"
    low = runtime.multiplies_bf16()
    assert losses["whole"] == pytest.approx(losses["f32"], abs=3e-2 if low else 0)
    assert (losses["whole"] != losses["f32"]) == low
    left, right = (find(runs[n] / "checkpoints", "latest") / "weights.safetensors" for n in ("whole", "broken"))
    assert left.read_bytes() == right.read_bytes()
    device = yaml.safe_load((runs["whole"] / "config.yaml").read_text())["device"]
    assert (device["compile"], device["precision"]) == ("on", "bf16" if low else "f32")
    assert [read_run(runs[n])["precision"] for n in ("eager", "whole")] == ["f32", device["precision"]]
    assert read_run(runs["whole"])["status"] == "FINISHED"


@COMPILER
@pytest.mark.slow
def test_ctrl_c_while_it_compiles_spares_the_compiler_and_saves(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = [*RUN, "device.compile=on", "trainer.max_steps=100000", f"hydra.run.dir={folder}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", *words],
        cwd=tmp_path, env=afresh(tmp_path), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    until(lambda: process.poll() is not None or compiles(process.pid))
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the compiler too
    _, said = process.communicate(timeout=300)
    assert process.returncode == 130, said
    assert read_run(folder)["status"] == "KILLED"
    assert find(folder / "checkpoints", "latest").name == "step-000001"
    assert list((tmp_path / "cache" / "compiled").glob("*/*.so")), "what was compiled is kept in our cache"
    assert not list((tmp_path / "tmp").glob("*/*/*.so")), "and not where others may write"


def compiles(pid: int) -> bool:
    """Whether a compiler makes code of the model below a process, beyond looking at what the CPU can do."""
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if any(word.endswith(".main.cpp") for word in child.cmdline()):
                    return True
    return False
