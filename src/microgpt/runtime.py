"""The machine: allocator, threads, device, signals, and libraries that talk too much."""

from __future__ import annotations

import ctypes
import logging
import os
import platform
import signal
import sys
import threading
import time
import types
import warnings
from collections.abc import Generator, Iterable
from contextlib import contextmanager, suppress

from microgpt.errors import UsageError


def prepare_process() -> None:
    """Set up allocator and environment; to be called before torch is imported."""
    keep_memory()
    # OpenMP threads that spin while they wait make a busy machine up to ten times slower; on one that does nothing
    # else those that sleep cost a seventh and more, as each is woken many times a step (benchmarks/RESULTS.md)
    if not is_alone():
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    quiet_libraries()


def is_alone() -> bool:
    """Whether nothing but this process keeps the machine busy, as Linux counts; false elsewhere."""
    try:
        for _ in range(5):  # what is seen once may have run for a moment only
            with open("/proc/loadavg", encoding="ascii") as file:
                if int(file.read().split()[3].partition("/")[0]) <= 1:
                    return True
            time.sleep(0.001)
    except (OSError, ValueError, IndexError):
        pass
    return False


def keep_memory() -> None:
    """Tell glibc to keep freed memory: a page fault for every fresh tensor costs as much as its arithmetic."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc":
        return
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        m_trim_threshold, m_top_pad, m_mmap_threshold, m_mmap_max = -1, -2, -3, -4
        libc.mallopt(m_mmap_threshold, 32 << 20)  # the largest that glibc takes
        libc.mallopt(m_mmap_max, 0)  # larger blocks come from the heap too
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 << 20)


def quiet_libraries() -> None:
    """Turn off telemetry, advertising and warnings of the libraries below."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING": "false",
        "DO_NOT_TRACK": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "true",
        "GIT_PYTHON_REFRESH": "quiet",
        "MPLBACKEND": "Agg",
    }.items():
        os.environ.setdefault(name, value)
    if os.environ.get("MICROGPT_DEBUG") == "1":
        return
    warnings.filterwarnings("ignore")
    for name in (
        "pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning_fabric", "lightning.pytorch",
        "lightning.fabric", "mlflow", "alembic", "datasets", "torch",
    ):  # fmt: skip
        logging.getLogger(name).setLevel(logging.ERROR)


def launched_world() -> int:
    """Processes that torchrun, SLURM's srun or our own launcher has started together; 1 where nobody has."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # in a batch script without srun, and in an interactive job, one process sees the number of tasks as well
    if "SLURM_STEP_ID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 1


def launched_rank() -> int:
    """This process's number among those."""
    return 0 if launched_world() == 1 else int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)


def choose_device(name: str) -> str:
    """The device that `auto|cpu|cuda|mps` means here.

    Raises:
        UsageError: the device is not on this machine, or it is several (`ddp`, `fsdp`).
    """
    if name in ("ddp", "fsdp"):
        raise UsageError(f"device={name}: only training is done by several processes", "use device=auto")
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        built = "this torch has no CUDA" if torch.version.cuda is None else "no CUDA device is visible"
        raise UsageError(f"device=cuda: {built}", "use device=auto, or see `microgpt gpu-check`")
    if name == "mps" and not torch.backends.mps.is_available():
        raise UsageError("device=mps: there is no Apple GPU here", "use device=auto")
    return name


def choose_precision(name: str, device: str, compiled: bool = False) -> str:
    """The number format that `auto|f32|bf16|f16` means on a device.

    A CPU that multiplies bf16 does it twice as fast as f32, which pays where the compiler fuses the changes of format
    into what stands around them.

    Raises:
        UsageError: f16 where its arithmetic does not exist.
    """
    if name == "auto":
        return "bf16" if device == "cuda" or (device == "cpu" and compiled and multiplies_bf16()) else "f32"
    if name == "f16" and device == "cpu":
        raise UsageError("device.precision=f16: CPUs train in f32 or bf16", "use device.precision=f32")
    return name


def multiplies_bf16() -> bool:
    """Whether this CPU has instructions for products of bf16 (AVX-512 BF16, AMX); without them f32 is faster."""
    import torch

    can: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # not in every version
    return bool(can.get("avx512_bf16") or can.get("amx_bf16"))


def usable_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_threads() -> int:
    """Threads to compute with where nothing else says how many: OMP_NUM_THREADS, or every core."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) if given.isdecimal() and int(given) > 0 else usable_cores()


def set_threads(count: int) -> int:
    """Use `count` CPU threads (0: as `cpu_threads` says) and return how many that is."""
    import torch

    threads = count or cpu_threads()
    torch.set_num_threads(threads)
    return threads


class StopSignals:
    """Notes SIGINT, SIGTERM and SIGUSR1 instead of dying of them; the loop looks between steps.

    A second SIGINT ends the process at once: every file is replaced by rename, so nothing is left half-written.

    Args:
        quiet: nothing is said of an interrupt.

    Attributes:
        requested: the name of the signal that asked to stop, or nothing.
        save: SIGUSR1 has asked for a checkpoint; who saves sets it back.
    """

    NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.requested = ""
        self.save = False
        self._interrupts = 0

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if number == signal.SIGUSR1:
            self.save = True
            return
        name = signal.Signals(number).name
        self._interrupts += name == "SIGINT"
        if self._interrupts > 1:
            if not self.quiet:
                os.write(2, b"\nstopped: at once, the last checkpoint stands - go on with resume=latest\n")
            os._exit(130)
        if not self.requested and name == "SIGINT" and not self.quiet:
            os.write(2, b"\nsaving, then stopping; once more to stop at once\n")
        self.requested = self.requested or name

    @contextmanager
    def installed(self) -> Generator[StopSignals]:
        """Listen while the block runs; the former handlers come back after it."""
        former = {number: signal.signal(number, self._note) for number in self.NUMBERS}
        try:
            yield self
        finally:
            for number, handler in former.items():
                signal.signal(number, handler)

    @contextmanager
    def apart(self) -> Generator[None]:
        """While the block runs a thread listens, and processes that are started do not hear the signals.

        A terminal's Ctrl-C and a scheduler's signal reach every process of the group, and a compiler would die of it.
        """
        over = threading.Event()

        def listen() -> None:
            while True:
                number = signal.sigwait(self.NUMBERS)
                if over.is_set() and number == signal.SIGUSR1:
                    return
                self._note(number, None)

        with deaf_children(self.NUMBERS):
            listener = threading.Thread(target=listen, name="signals", daemon=True)
            listener.start()
            try:
                yield
            finally:
                over.set()
                signal.pthread_kill(listener.ident or 0, signal.SIGUSR1)
                listener.join()

    def reinstall(self) -> None:
        """Take the signals back from a library that put its own handlers in."""
        for number in self.NUMBERS:
            signal.signal(number, self._note)


@contextmanager
def deaf_children(numbers: Iterable[signal.Signals]) -> Generator[None]:
    """Threads and processes that this thread starts meanwhile do not hear these signals; other threads do."""
    former = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, former)


def now_iso() -> str:
    """The wall clock as an ISO 8601 time with its zone. Durations use `time.monotonic`, never this."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def peak_memory_mb() -> float:
    """The most memory that this process has had resident, in MiB."""
    with suppress(OSError, StopIteration):  # Linux: ru_maxrss would be no less than the parent's at the start
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            return int(next(line for line in file if line.startswith("VmHWM:")).split()[1]) / 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024) if sys.platform == "darwin" else peak / 1024
