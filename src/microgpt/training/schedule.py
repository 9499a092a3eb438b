"""The learning rate as a function of the step, and how it goes on when a run is extended."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from microgpt.config.schema import OptimizerConfig

REWARM_SHARE = 0.1
REWARM_PEAK = 0.5


@dataclass(frozen=True)
class Segment:
    """A stretch of steps with one shape; factors are shares of the peak learning rate.

    Attributes:
        start, steps: the stretch.
        warmup: steps in which the factor rises linearly.
        first: factor at the start; after warm-up it is `peak`.
        peak: factor after warm-up.
        final: factor at the end.
        shape: `linear`, `cosine`, `wsd` or `constant`.
        decay_fraction: share of the stretch that `wsd` spends going down.
    """

    start: int
    steps: int
    warmup: int
    first: float
    peak: float
    final: float
    shape: str
    decay_fraction: float

    def factor(self, step: int) -> float:
        """The factor at a step of the stretch, counted from 0."""
        at = step - self.start
        if at < self.warmup:
            return self.first + (self.peak - self.first) * (at + 1) / self.warmup
        length = max(1, self.steps - self.warmup)
        share = min(1.0, (at - self.warmup) / length)
        if self.shape == "constant":
            return self.peak
        if self.shape == "wsd":
            down = self.decay_fraction * self.steps / length
            share = max(0.0, 1 - (1 - share) / min(1.0, down))
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.peak + (self.final - self.peak) * share


@dataclass(frozen=True)
class Schedule:
    """One segment, and another for each time that the run was extended."""

    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """The step at which the run ends."""
        return self.segments[-1].start + self.segments[-1].steps

    def factor(self, step: int) -> float:
        """The share of the peak learning rate that the update of a step (from 0) uses."""
        for segment in reversed(self.segments):
            if step >= segment.start:
                return segment.factor(step)
        return self.segments[0].factor(step)

    def to_json(self) -> list[dict[str, Any]]:
        """For the checkpoint."""
        return [asdict(s) for s in self.segments]


def make_schedule(optimizer: OptimizerConfig, max_steps: int) -> Schedule:
    """The schedule of a fresh run.

    Raises:
        ValueError: it is still auto.
    """
    if optimizer.schedule is None:
        raise ValueError("optimizer.schedule is auto: resolve the config first")
    warmup = min(optimizer.warmup_steps or 0, max_steps)
    whole = Segment(
        0, max_steps, warmup, 0.0, 1.0, optimizer.final_lr_ratio, optimizer.schedule, optimizer.decay_fraction
    )
    return Schedule((whole,))


def from_json(value: list[dict[str, Any]]) -> Schedule:
    """A schedule from a checkpoint."""
    return Schedule(tuple(Segment(**entry) for entry in value))


def extended(schedule: Schedule, step: int, steps: int) -> tuple[Schedule, str]:
    """A schedule that goes on for `steps` after `step`, and what it does, in words.

    The learning rate does not jump: it goes on from where it stood. Where that was next to nothing it rises again
    to half of the peak over a tenth of the new steps, since at zero nothing would be learned.
    """
    last = schedule.segments[-1]
    now = schedule.factor(min(step, schedule.end) - 1) if step else last.first
    if now >= 0.1 or last.shape == "constant":
        segment = Segment(step, steps, 0, now, now, last.final, last.shape, last.decay_fraction)
        words = f"goes on from {now:.3g} of its peak, {last.shape}, to {segment.final:g}"
    else:
        warmup = max(1, int(steps * REWARM_SHARE))
        segment = Segment(step, steps, warmup, now, REWARM_PEAK, last.final, last.shape, last.decay_fraction)
        words = (
            f"rises from {now:.3g} to {REWARM_PEAK:g} of its peak over {warmup} steps, then {last.shape} to "
            f"{segment.final:g}"
        )
    return Schedule((*schedule.segments, segment)), words
