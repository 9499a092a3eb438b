"""The processes of one distributed run: who they are, what they tell each other, and how they end together.

Process 0 leads: it alone resolves what is to be trained, owns the run folder and writes. It tells the others through
the key-value store that PyTorch's processes meet at; numbers of each step go through collective operations.
"""

from __future__ import annotations

import ctypes
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from microgpt.config.schema import DeviceConfig
from microgpt.errors import OK, UNEXPECTED, DivergedError, MicrogptError, Stopped, UsageError
from microgpt.runtime import StopSignals, launched_rank

if TYPE_CHECKING:
    from torch import Tensor

DISTRIBUTED = ("ddp", "fsdp")
LAUNCHER = "MICROGPT_LAUNCHER"  # pid of our own launcher, which tells the user of a process that was killed
ENDED = "ended"
POLL_SECONDS = 0.05
LAST_WORDS_SECONDS = 5.0  # that process 0 has to say why it ended


def divided(rows: int, accumulate: int, world: int) -> tuple[int, int]:
    """(rows of a micro-batch, micro-batches a step) of each process, so that together a step has the same rows.

    Micro-batches are dealt out first, since large ones are quicker; what is left divides their rows.

    Raises:
        UsageError: it does not divide.
    """
    dealt = math.gcd(accumulate, world)
    rest = world // dealt
    if rows % rest:
        raise UsageError(
            f"data.batch_size={rows} x trainer.accumulate={accumulate} rows of a step do not divide over {world} "
            "processes",
            f"take a data.batch_size that is a multiple of {rest}, or another device.devices",
        )
    return rows // rest, accumulate // dealt


class SharedSignals(StopSignals):
    """The signals that any process has had, as all of them agreed at the start of a step.

    Args:
        own: those of this process.
    """

    def __init__(self, own: StopSignals) -> None:
        super().__init__()
        self.own = own

    def reinstall(self) -> None:
        self.own.reinstall()

    def flags(self) -> list[int]:
        """What this process has to say: SIGINT, SIGTERM, SIGUSR1."""
        asked, self.own.save = self.own.save, False
        return [int(self.own.requested == "SIGINT"), int(self.own.requested == "SIGTERM"), int(asked)]

    def agree(self, interrupted: int, terminated: int, saves: int) -> None:
        """Take over what all have said."""
        self.requested = self.requested or ("SIGINT" if interrupted else "SIGTERM" if terminated else "")
        self.save = self.save or bool(saves)


@dataclass
class Ranks:
    """This process and its fellows.

    Attributes:
        rank, world: its number, and how many there are.
        local_rank, local_world: the same on this machine.
        device: `cuda` or `cpu`.
        environment: Lightning's view of whoever has started them.
        store: where they tell each other.
        timeout: seconds that one waits for the others.
        signals: what `agree` agrees on, once there is training to stop.
    """

    rank: int
    world: int
    local_rank: int
    local_world: int
    device: str
    environment: Any
    store: Any
    timeout: float
    signals: SharedSignals | None = None

    @property
    def first(self) -> bool:
        """Whether this process leads."""
        return self.rank == 0

    @property
    def torch_device(self) -> str:
        """As torch names it."""
        return f"cuda:{self.local_rank}" if self.device == "cuda" else self.device

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place where the tensor is on the device of the run."""
        import torch.distributed as dist

        there = tensor.to(self.torch_device)
        dist.all_reduce(there)
        return there.to(tensor.device)

    def agree(self, tokens: int) -> int:
        """The targets of a step in all processes; on the way they agree on the signals that any has had."""
        import torch

        flags = self.signals.flags() if self.signals else [0, 0, 0]
        counted, *agreed = self.sum(torch.tensor([tokens, *flags], dtype=torch.int64)).tolist()
        if self.signals:
            self.signals.agree(*agreed)
        return int(counted)

    def tell(self, key: str, value: Any) -> None:
        """Say something to the others, as JSON."""
        self.store.set(key, json.dumps(value))

    def hear(self, key: str) -> Any:
        """Wait for what process 0 says, however long its work takes.

        Raises:
            SystemExit: it has ended instead, with its exit code, and has said why itself.
        """
        while not self.store.check([key]):
            if self.store.check([ENDED]):
                raise SystemExit(json.loads(self.store.get(ENDED)))
            time.sleep(POLL_SECONDS)
        return json.loads(self.store.get(key))

    def _last_words(self) -> int | None:
        """The exit code of process 0, if it tells it soon."""
        until = time.monotonic() + LAST_WORDS_SECONDS
        with suppress(RuntimeError):  # the store went with it
            while time.monotonic() < until:
                if self.store.check([ENDED]):
                    return int(json.loads(self.store.get(ENDED)))
                time.sleep(POLL_SECONDS)
        return None

    @contextmanager
    def together(self) -> Generator[None]:
        """The block is the run; all end with one exit code, and one of them says why."""
        code, lost = UNEXPECTED, False
        try:
            yield
            code = OK
        except MicrogptError as error:
            code = error.exit_code
            if self.first:
                raise
            # what all have decided alike is told by process 0, which ends later where it still has to write
            if not isinstance(error, (Stopped, DivergedError)) and self._last_words() is None:
                raise
            raise SystemExit(code) from None
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else UNEXPECTED
            raise
        except KeyboardInterrupt:
            code = 130
            raise
        except Exception as error:
            lost = is_lost(error)
            if not lost:
                raise
            self._lost(error)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_IGN)  # torchrun sends one to whoever is not the first to end
            self._leave(code, lost)

    def _lost(self, error: Exception) -> None:
        """Another process is gone; process 0 or the launcher says so."""
        code = None if self.first else self._last_words()
        if code is not None:
            raise SystemExit(code) from None
        if LAUNCHER in os.environ and not os.environ.get("MICROGPT_DEBUG"):
            raise SystemExit(UNEXPECTED) from None
        first = (str(error).splitlines() or [""])[0]
        told = re.sub(r"^\[[^\]]*\]\s*", "", first)  # without the place in gloo's source
        reason = told.partition(". ")[0][:160] or type(error).__name__
        raise MicrogptError(
            f"another process of the run has ended, or did not answer for {self.timeout:g} s ({reason})",
            "see what it has said; go on with resume=latest",
        ) from error

    def _leave(self, code: int, lost: bool) -> None:
        import torch.distributed as dist

        if self.first:
            with suppress(RuntimeError):
                self.tell(ENDED, code)
        elif code in (OK, 130, 143):
            # torchrun ends everybody when one ends badly, so those that follow do not end before process 0 has
            with suppress(RuntimeError, SystemExit):
                self.hear(ENDED)
        if self.device == "cpu":  # NCCL's waits for the others, who may be stuck; the end of the process does it too
            with suppress(RuntimeError):
                dist.destroy_process_group()
        if self.first and not lost:
            with suppress(RuntimeError):  # it keeps the store: the others still read it
                until = time.monotonic() + LAST_WORDS_SECONDS
                while time.monotonic() < until and self.store.add("left", 0) < self.world - 1:
                    time.sleep(POLL_SECONDS)
        elif not self.first:
            with suppress(RuntimeError):
                self.store.add("left", 1)


def is_lost(error: Exception) -> bool:
    """Whether an exception means that a collective operation has failed: a process is gone or silent."""
    import torch.distributed as dist

    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and any(w in text for w in ("gloo", "NCCL", "Connection reset by peer", "Connection closed by peer", "c10d"))
    )


def joined(device: DeviceConfig) -> Ranks:
    """Meet the other processes that torchrun, srun or the launcher has started.

    Raises:
        UsageError: there is no GPU for this one.
        MicrogptError: the others did not come.
    """
    if launched_rank():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - tables and samples are for process 0 to show
    _end_with_launcher()
    import torch
    import torch.distributed as dist

    from microgpt.training.lightning import SLURMEnvironment, TorchElasticEnvironment

    environment = TorchElasticEnvironment() if "RANK" in os.environ else SLURMEnvironment(auto_requeue=False)
    rank, world, local = environment.global_rank(), environment.world_size(), environment.local_rank()
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("SLURM_NTASKS_PER_NODE") or str(world)
    accelerator = device.accelerator
    if accelerator == "auto":
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda":
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local} of this machine has no GPU: {torch.cuda.device_count()} are visible",
                "start one process a GPU, each of which sees all, or use device.accelerator=cpu",
            )
        torch.cuda.set_device(local)
    # what env:// reads; SLURM's are worked out from its node list
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = environment.main_address, str(environment.main_port)
    os.environ.setdefault("RANK", str(rank))
    os.environ.setdefault("WORLD_SIZE", str(world))
    limit = timedelta(seconds=device.timeout)
    try:
        store, _, _ = next(iter(dist.rendezvous("env://", rank, world, timeout=limit)))
        backend = "nccl" if accelerator == "cuda" else "gloo"
        more: dict[str, Any] = {"device_id": torch.device("cuda", local)} if accelerator == "cuda" else {}
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=limit, **more)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        reason = (str(error).splitlines() or [""])[0][:160]
        raise MicrogptError(
            f"process {rank} did not meet the other {world - 1} at {where} in {device.timeout:g} s ({reason})",
            "see that all were started, and that the port is free and open between the machines",
        ) from error
    return Ranks(rank, world, local, int(here), accelerator, environment, store, device.timeout)


def _end_with_launcher() -> None:
    """Ask the kernel for a SIGTERM when our launcher dies, kill -9 included: then this process saves and ends."""
    launcher = os.environ.get(LAUNCHER)
    if launcher is None or sys.platform != "linux":
        return
    pr_set_pdeathsig = 1
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
    if os.getppid() != int(launcher):
        raise SystemExit(143)  # it died before we asked
