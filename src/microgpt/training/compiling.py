"""Whether to compile the loss, decided from the length of a run alone, and the compiling itself.

The choice never looks at what a cache holds or at how fast the machine is today: the same command has the same bits.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microgpt import files
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.model.gpt import GPT
from microgpt.training.estimate import CORE_FLOPS, GPU_FLOPS, eager_seconds

COMPILE_SECONDS = 25.0  # with a cold cache; a warm one takes 3 to 5
GAIN = 1.5  # times the tokens a second of eager steps
PAYS_AFTER_S = COMPILE_SECONDS / (1 - 1 / GAIN)


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
    compiled = eager / GAIN + COMPILE_SECONDS
    wanted, hindrance = config.device.compile, _hindrance(device, config.device.name)
    if wanted == "on" and hindrance:
        raise UsageError(f"device.compile=on: {hindrance}", "take device.compile=off")
    if wanted == "on":
        return Plan(compiled, True, "asked for")
    if wanted == "off" or hindrance:
        return Plan(eager, False, hindrance or "switched off")
    if eager > PAYS_AFTER_S:
        return Plan(compiled, True, f"saves about a third, and takes some {COMPILE_SECONDS:.0f} s the first time")
    return Plan(eager, False, f"would pay from {PAYS_AFTER_S:.0f} s on")


def _hindrance(device: str, name: str) -> str:
    """Why nothing can be compiled here, or nothing."""
    if name == "fsdp":
        return "what fsdp does between layers is not compiled"
    if device == "mps":
        return "PyTorch compiles nothing for Apple GPUs that pays"
    if device == "cpu" and not (shutil.which("g++") or shutil.which("clang++")):
        return "there is no C++ compiler (g++ or clang++)"
    return ""


def compiled_loss(model: GPT, device: str) -> Callable[..., Tensor]:
    """The model's summed loss, compiled at its first call for a device; kept in the cache folder for later runs."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(files.cache_folder() / "compiled"))
    # what attention adds up over chunks would be added again by each of its readers: four times a layer's other work
    options: dict[str, Any] | None = {"realize_reads_threshold": 2} if device == "cpu" else None
    return torch.compile(model.loss, dynamic=False, options=options)
