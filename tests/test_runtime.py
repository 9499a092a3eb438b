"""Signals are obeyed between steps, a second Ctrl-C at once; the machine is asked, not guessed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from microgpt import runtime
from microgpt.errors import UsageError

LOOP = """
import subprocess, sys, time
from contextlib import nullcontext
from microgpt.runtime import StopSignals
signals = StopSignals()
apart = "apart" in sys.argv
with signals.installed(), signals.apart() if apart else nullcontext():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1)"]) if apart else None
    print("ready", flush=True)
    said = ""
    while True:
        time.sleep(0.01)
        if signals.requested and not said:
            said = signals.requested
            print(said, flush=True)
            if "leave" in sys.argv:
                break
print("left", flush=True)
if child is not None:
    print(child.wait(), flush=True)
time.sleep(30)
"""


@pytest.fixture
def looping() -> Callable[..., subprocess.Popen[str]]:
    started: list[subprocess.Popen[str]] = []

    def start(*words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", LOOP, *words],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_first_signal_is_noted_and_the_work_goes_on(
    looping: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = looping()
    process.send_signal(number)
    assert read(process) == number.name
    time.sleep(0.1)
    assert process.poll() is None


def test_a_second_interrupt_ends_it_within_a_second_with_130(looping: Callable[..., subprocess.Popen[str]]) -> None:
    process = looping()
    process.send_signal(signal.SIGINT)
    assert read(process) == "SIGINT"
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert time.monotonic() - started < 1
    assert process.stderr is not None
    said = process.stderr.read()
    assert "once more to stop at once" in said
    assert "resume=latest" in said
    assert "Traceback" not in said


def test_two_interrupts_end_it_also_after_a_sigterm(looping: Callable[..., subprocess.Popen[str]]) -> None:
    process = looping()
    process.send_signal(signal.SIGTERM)
    assert read(process) == "SIGTERM"
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)  # two that come before it looks would be one
    assert process.wait(timeout=1) == 130


def test_the_first_signal_is_the_one_that_is_reported(looping: Callable[..., subprocess.Popen[str]]) -> None:
    process = looping()
    process.send_signal(signal.SIGINT)
    assert read(process) == "SIGINT"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_after_the_block_signals_do_again_what_they_did(
    looping: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = looping("leave")
    process.send_signal(signal.SIGTERM)
    assert read(process) == "SIGTERM"
    assert read(process) == "left"
    process.send_signal(number)
    assert process.wait(timeout=60) in (-number, 130)  # Python's own handler turns SIGINT into KeyboardInterrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_apart_a_signal_to_the_whole_group_is_heard_and_leaves_children_alone(
    looping: Callable[..., subprocess.Popen[str]], number: signal.Signals
) -> None:
    process = looping("leave", "apart")
    os.killpg(process.pid, number)
    assert [read(process) for _ in range(3)] == [number.name, "left", "0"]
    process.send_signal(number)
    assert process.wait(timeout=60) in (-number, 130)


def test_apart_a_second_ctrl_c_ends_at_once(looping: Callable[..., subprocess.Popen[str]]) -> None:
    process = looping("apart")
    process.send_signal(signal.SIGINT)
    assert read(process) == "SIGINT"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


def test_signals_can_be_taken_back_from_a_library() -> None:
    signals = runtime.StopSignals()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with signals.installed():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested == ""
        signals.reinstall()
        os.kill(os.getpid(), signal.SIGTERM)
        assert signals.requested == "SIGTERM"
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


# ---- device, threads, memory


def test_a_device_that_is_not_there_is_refused_and_auto_takes_one_that_is() -> None:
    import torch

    assert runtime.choose_device("cpu") == "cpu"
    found = runtime.choose_device("auto")
    assert found == ("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    for name, there in (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())):
        if there:
            assert runtime.choose_device(name) == name
        else:
            with pytest.raises(UsageError, match=f"device={name}"):
                runtime.choose_device(name)


def test_the_number_format_fits_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for can in (
        {"avx512_bf16": True},
        {"amx_bf16": True},
        {"avx512_bf16": False, "amx_bf16": False, "avx2": True},
        {},
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda can=can: can)
        fast = any(can.get(name) for name in ("avx512_bf16", "amx_bf16"))
        assert runtime.choose_precision("auto", "cpu", compiled=True) == ("bf16" if fast else "f32")
        assert runtime.choose_precision("auto", "cpu", compiled=False) == "f32"
        assert runtime.choose_precision("f32", "cpu", compiled=True) == "f32"
        assert runtime.choose_precision("auto", "mps", compiled=True) == "f32"
    assert [runtime.choose_precision("auto", d) for d in ("cuda", "cpu", "mps")] == ["bf16", "f32", "f32"]
    assert runtime.choose_precision("f16", "cuda") == "f16"
    assert runtime.choose_precision("bf16", "cpu") == "bf16"
    with pytest.raises(UsageError):
        runtime.choose_precision("f16", "cpu")


def test_threads_are_those_the_process_may_use() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from microgpt.runtime import set_threads; import torch\n"
        "assert set_threads(0) == torch.get_num_threads() == 1\n"
        "assert set_threads(3) == torch.get_num_threads() == 3\n"
    )
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system has no affinity")
    subprocess.run([sys.executable, "-c", code], check=True)


def test_preparing_a_process_turns_telemetry_off_and_imports_nothing_large() -> None:
    code = (
        "import os, sys\n"
        "from microgpt.runtime import prepare_process\n"
        "prepare_process()\n"
        "assert os.environ['MLFLOW_DISABLE_TELEMETRY'] == 'true'\n"
        "assert os.environ['HF_HUB_DISABLE_TELEMETRY'] == '1'\n"
        "assert os.environ['MPLBACKEND'] == 'svg', 'what the user set stays'\n"
        "assert not {'torch', 'mlflow', 'pytorch_lightning', 'hydra', 'numpy'} & set(sys.modules)\n"
    )
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "HF_"))}
    subprocess.run([sys.executable, "-c", code], check=True, env={**env, "MPLBACKEND": "svg"})


def test_peak_memory_sees_what_was_held() -> None:
    code = (
        "from microgpt.runtime import peak_memory_mb\n"
        "before = peak_memory_mb(); block = bytearray(200 << 20); after = peak_memory_mb()\n"
        "assert 190 < after - before < 260, (before, after)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_wall_clock_has_its_zone() -> None:
    from datetime import datetime

    assert datetime.strptime(runtime.now_iso(), "%Y-%m-%dT%H:%M:%S%z").tzinfo is not None


@pytest.mark.skipif(sys.platform != "linux", reason="the count of running processes is Linux's")
def test_threads_sleep_while_they_wait_where_another_process_works(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "active")  # what is set below is undone with it
    del os.environ["OMP_WAIT_POLICY"]
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
    ) as busy:
        assert busy.stdout is not None
        busy.stdout.readline()
        assert not runtime.is_alone()
        runtime.prepare_process()
        busy.kill()
    assert os.environ["OMP_WAIT_POLICY"] == "passive"
