"""Whether to compile the loss, decided from the length of a run and the kind of machine, and the compiling itself.

The choice never looks at what a cache holds or at how fast the machine is today: the same command has the same bits.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._functorch import config as functorch_config

from microgpt import files, runtime
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.model.attention import CHUNK
from microgpt.model.gpt import GPT
from microgpt.training.estimate import CORE_FLOPS, GPU_FLOPS, eager_seconds

#: seconds of compiling for a CPU of two cores with a cold cache: of any model, and of each chunk of a layer's
#: attention; with a warm one it takes 3 to 10
COMPILE_S, COMPILE_CHUNK_S = 15.0, 2.0
#: times the tokens a second of eager steps on a CPU: in f32, and in bf16 where it multiplies that and eager steps
#: stay f32 (benchmarks/NOTES.md)
GAIN, LOW_GAIN = 1.3, 1.9
#: both for a GPU, not measured
GPU_COMPILE_S, GPU_GAIN = 25.0, 1.5
#: names the folder in which PyTorch keeps compiled code
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


@dataclass(frozen=True)
class Plan:
    """How long a run may take, and whether it is compiled.

    Attributes:
        seconds: of training, a guess from operations alone, with compiling where that pays.
        compiled: whether the loss is compiled.
        why: in words, for the table at the start.
    """

    seconds: float
    compiled: bool
    why: str


def planned(flops_per_token: int, config: TrainConfig, steps: int, device: str) -> Plan:
    """The plan of a run.

    Args:
        flops_per_token: of the model, forward and backward.
        config: with every auto resolved but that of `device.compile`.
        steps: the run's.
        device: `cpu`, `cuda` or `mps`.

    Raises:
        UsageError: compiling is asked for where it cannot be done.
    """
    tokens = steps * (config.data.batch_size or 1) * config.trainer.accumulate * config.model.block_size
    rate = CORE_FLOPS * config.device.threads if device == "cpu" else GPU_FLOPS
    eager = eager_seconds(steps, tokens, flops_per_token, rate)
    if device == "cpu":
        low = runtime.choose_precision(config.device.precision, device, compiled=True) == "bf16"
        gain, cold = LOW_GAIN if low else GAIN, compile_seconds(config)
    else:
        gain, cold = GPU_GAIN, GPU_COMPILE_S
    compiled, pays_after = eager / gain + cold, cold / (1 - 1 / gain)
    wanted = config.device.compile
    if wanted == "off":
        return Plan(eager, False, "switched off")
    if wanted != "on" and eager <= pays_after:
        return Plan(eager, False, f"would pay from {pays_after:.0f} s on")
    hindrance = _hindrance(device, config.device.name)
    if hindrance and wanted == "on":
        raise UsageError(f"device.compile=on: {hindrance}", "take device.compile=off")
    if hindrance:
        return Plan(eager, False, hindrance)
    saved = f"saves about {100 * (1 - 1 / gain):.0f} % of the time, and takes some {cold:.0f} s the first time"
    return Plan(compiled, True, "asked for" if wanted == "on" else saved)


def compile_seconds(config: TrainConfig) -> float:
    """Seconds of compiling for a CPU with a cold cache, about: each chunk of each layer is code of its own."""
    return COMPILE_S + COMPILE_CHUNK_S * config.model.n_layer * -(-config.model.block_size // CHUNK)


def _hindrance(device: str, name: str) -> str:
    """Why nothing can be compiled here, or nothing."""
    if name == "fsdp":
        return "what fsdp does between layers is not compiled"
    if device == "mps":
        return "PyTorch compiles nothing for Apple GPUs that pays"
    if device != "cpu":
        return ""
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")  # as PyTorch chooses
    found = shutil.which(compiler)
    return f"there is no C++ compiler ({compiler})" if found is None else _fault_of(found)


@functools.cache
def _fault_of(compiler: str) -> str:
    """Why a C++ compiler cannot make code that Python loads, or nothing; found out in half a second."""
    words = [compiler, "-x", "c++", "-", "-I", sysconfig.get_path("include")]
    source = "#include <Python.h>\n"
    with tempfile.TemporaryDirectory() as folder:
        if sys.platform == "darwin":  # its libraries are linked in another way
            words += ["-fsyntax-only"]
        else:
            source += "#include <omp.h>\nint threads() { return omp_get_max_threads(); }\n"
            words += ["-shared", "-fPIC", "-fopenmp", "-o", os.path.join(folder, "probe.so")]
        try:
            done = subprocess.run(
                words, input=source, capture_output=True, text=True, timeout=60, start_new_session=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            return f"the C++ compiler {compiler} cannot be used ({type(error).__name__})"
    return "" if done.returncode == 0 else f"the C++ compiler fails: {complaint(done.stderr)}"


def complaint(said: str) -> str:
    """The line in which a compiler says what is wrong."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["without a word"]
    return next((line for line in lines if " error: " in line), lines[0])[:200]


def is_of_compiling(error: BaseException) -> bool:
    """Whether an exception means that PyTorch could not compile the model."""
    return type(error).__module__.startswith(("torch._inductor", "torch._dynamo"))


def compiled_loss(model: GPT, device: str) -> Callable[..., Tensor]:
    """The model's summed loss, compiled at its first call for a device; kept in the cache folder for later runs."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir  # takes a second, which compiling takes too

    # Lightning's import has filled in PyTorch's own choice: below /tmp, lost at the next start and open to others
    if os.environ.get(CACHE_VARIABLE) in (None, os.path.abspath(default_cache_dir())):
        os.environ[CACHE_VARIABLE] = str(files.cache_folder() / "compiled")
    # attention and the loss have backward passes of their own, which are part of the key; without this a warm start
    # traces them again and takes 8 s instead of 3
    with suppress(AttributeError):  # not in every version
        functorch_config.autograd_cache_allow_custom_autograd_functions = True
    # what attention adds up over chunks would be added again by each of its readers: four times a layer's other work
    options: dict[str, Any] | None = {"realize_reads_threshold": 2} if device == "cpu" else None
    return torch.compile(model.loss, dynamic=False, options=options)
