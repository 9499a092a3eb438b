"""What steps and validations leave behind: for the log, the clock and the best."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass
class StepRecord:
    """What one step left for the log; tensors are read later, together."""

    step: int
    loss: Tensor
    grad_norm: Tensor
    lr: float
    tokens_done: int
    update_ratio: Tensor | None = None


@dataclass
class Clock:
    """Seconds spent since the last look, by what for."""

    data: float = 0.0
    steps: float = 0.0
    count: int = 0
    tokens: int = 0


@dataclass
class BestLoss:
    """The lowest validation loss so far."""

    loss: float = float("inf")
    bpb: float = float("inf")
    step: int = 0
