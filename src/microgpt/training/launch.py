"""`device=ddp` and `fsdp` without torchrun: this process starts those that train, and ends with them.

It trains nothing itself and imports no torch, unless it must count GPUs. What the processes are told by environment
variables is what torchrun tells its own, so that there is one way from there on.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import types
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from microgpt.config.schema import DeviceConfig
from microgpt.errors import UNEXPECTED, UsageError
from microgpt.runs.folder import COMMAND, command_line
from microgpt.training.ranks import LAUNCHER

GRACE_SECONDS = 10.0  # for the others to end by themselves once one has failed
POLL_SECONDS = 0.05
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def processes_here(device: DeviceConfig) -> int:
    """How many processes each machine gets: as configured, or one a GPU.

    Raises:
        UsageError: there are fewer GPUs.
    """
    if device.accelerator == "cpu" or (device.accelerator == "auto" and device.devices == 1):
        return device.devices or 1
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.accelerator == "cuda" and not gpus:
        raise UsageError("device.accelerator=cuda: no CUDA device is visible", "use device.accelerator=cpu")
    if gpus and (device.devices or 1) > gpus:
        raise UsageError(
            f"device.devices={device.devices}: this machine has {gpus} GPUs",
            f"use device.devices={gpus}, or device.accelerator=cpu",
        )
    return device.devices or gpus or 1


def launch(device: DeviceConfig, words: list[str], folder: Path, count: int) -> int:
    """Run a training in several processes of this machine and return its exit code.

    Args:
        device: of the run.
        words: overrides of the run.
        folder: its folder.
        count: processes on this machine.

    Raises:
        UsageError: there are several machines, and nothing says which one this is.
    """
    node = _node(device)
    alone = device.num_nodes == 1
    common = {
        "WORLD_SIZE": str(count * device.num_nodes),
        "LOCAL_WORLD_SIZE": str(count),
        "GROUP_RANK": str(node),
        "MASTER_ADDR": "127.0.0.1" if alone else os.environ["MASTER_ADDR"],
        "MASTER_PORT": str(_free_port()) if alone else os.environ.get("MASTER_PORT", "29500"),
        COMMAND: command_line(),
        LAUNCHER: str(os.getpid()),
    }
    # Hydra's grammar: in quotes anything goes but a quote and a backslash before it
    where = "'" + str(folder).replace("\\", "\\\\").replace("'", "\\'") + "'"
    given = [w for w in sys.argv[1:] if w not in ("-m", "--multirun")]
    flags = [f for i, w in enumerate(given[:-1]) if w in ("--config-dir", "-cd") for f in given[i : i + 2]]
    command = [sys.executable, "-m", "microgpt.train", *flags, *words, f"hydra.run.dir={where}"]
    inherited = {k: v for k, v in os.environ.items() if k != "HYDRA_FULL_ERROR"}  # set by `stage_main` for Hydra
    ranks: list[subprocess.Popen[bytes]] = []
    with _passed_on(ranks):
        try:
            for local in range(count):
                numbers = {"RANK": str(node * count + local), "LOCAL_RANK": str(local)}
                # a session of its own: a Ctrl-C is for this process, which passes it on once
                ranks.append(
                    subprocess.Popen(
                        command,
                        env={**inherited, **common, **numbers},
                        stdin=subprocess.DEVNULL,
                        start_new_session=True,
                    )
                )
            return _watched(ranks, node * count, folder)
        finally:
            for process in ranks:
                if process.poll() is None:
                    process.kill()
                    process.wait()


def _watched(ranks: list[subprocess.Popen[bytes]], first: int, folder: Path) -> int:
    """Wait for all; once one has failed the others get a moment, then they are killed."""
    failed: tuple[int, int] | None = None  # number and exit code
    killing_at = float("inf")
    while True:
        codes = [p.poll() for p in ranks]
        bad = [(first + i, code) for i, code in enumerate(codes) if code]
        if bad and failed is None:
            # who was killed is the cause, and who only says that another is gone is not
            bad.sort(key=lambda found: (found[1] > 0, found[1] == UNEXPECTED))
            failed, killing_at = bad[0], time.monotonic() + GRACE_SECONDS
        if None not in codes:
            break
        if time.monotonic() > killing_at:
            for process in ranks:
                process.kill()
        time.sleep(POLL_SECONDS)
    if failed is None:
        return 0
    rank, code = failed
    if code > 0:
        return code  # it has said why
    name = signal.Signals(-code).name if -code in {s.value for s in signal.Signals} else f"signal {-code}"
    print(
        f"error: process {rank} of the run was ended by {name}, so the others were ended - "
        f"go on with python -m microgpt.train resume={folder}",
        file=sys.stderr,
    )
    return UNEXPECTED


@contextmanager
def _passed_on(ranks: list[subprocess.Popen[bytes]]) -> Generator[None]:
    """While the block runs, signals go on to the processes that train, which save and end."""

    def pass_on(number: int, frame: types.FrameType | None) -> None:
        for process in ranks:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    former = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _node(device: DeviceConfig) -> int:
    """This machine's number among those of the run."""
    if device.num_nodes == 1:
        return 0
    number = os.environ.get("NODE_RANK", "")
    if not number.isdecimal() or int(number) >= device.num_nodes or not os.environ.get("MASTER_ADDR"):
        raise UsageError(
            f"device.num_nodes={device.num_nodes}: nothing says which machine this is",
            "start it with torchrun or srun (docs/devices.md), set NODE_RANK=0.. and MASTER_ADDR on each, or go on "
            "with device.num_nodes=1",
        )
    return int(number)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
