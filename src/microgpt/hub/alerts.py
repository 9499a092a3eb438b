"""What a run's curves warn of: NaN, divergence, a stall, overfitting."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean, median

from microgpt.hub.series import Series

WINDOW = 20
DIVERGED = 1.3  # the recent mean over the best one, from where a loss counts as running away
WORSE_VALIDATIONS = 3
STALL_S, STALL_STEPS = 60.0, 50.0


@dataclass(frozen=True)
class Alert:
    """A warning.

    Attributes:
        kind: nan, divergence, stall or overfitting.
        title: in two words.
        text: what was seen, and what to do.
    """

    kind: str
    title: str
    text: str


def not_finite(loss: Series) -> Alert | None:
    """The loss is no number."""
    bad = next((s for s, v in zip(reversed(loss.steps), reversed(loss.values)) if not math.isfinite(v)), None)
    if bad is None:
        return None
    return Alert("nan", "NaN", f"the loss of step {bad:,} is no number: lower the learning rate, or clip harder")


def divergence(loss: Series) -> Alert | None:
    """The loss of late is far above the best it has been."""
    values = [v for v in loss.values if math.isfinite(v)]
    if len(values) < 3 * WINDOW:
        return None
    means = [fmean(values[i : i + WINDOW]) for i in range(0, len(values) - WINDOW + 1, WINDOW)]
    best, now = min(means), fmean(values[-WINDOW:])
    if now <= best * DIVERGED or now - best < 0.3:
        return None
    return Alert(
        "divergence",
        "divergence",
        f"the loss went up to {now:.3f} after {best:.3f}: stop, and lower the learning rate",
    )


def overfitting(val: Series, train: Series) -> Alert | None:
    """The validation loss has grown for some time while the training loss falls."""
    losses = [v for v in val.values if math.isfinite(v)]
    if len(losses) <= WORSE_VALIDATIONS:
        return None
    best = min(range(len(losses)), key=losses.__getitem__)
    after = losses[best + 1 :]
    if len(after) < WORSE_VALIDATIONS or losses[-1] < losses[best] * 1.01:
        return None
    since = [v for s, v in zip(train.steps, train.values) if s >= val.steps[best] and math.isfinite(v)]
    half = len(since) // 2
    if half < 2 or fmean(since[half:]) >= fmean(since[:half]):
        return None
    return Alert(
        "overfitting",
        "overfitting",
        f"validation is at {losses[-1]:.3f}, its best was {losses[best]:.3f} at step {val.steps[best]:,}, "
        "while training goes on falling: the best checkpoint is kept, more steps will not help",
    )


def stall(silent_s: float, step_ms: Series) -> Alert | None:
    """Nothing was written for far longer than steps take.

    Args:
        silent_s: seconds since the last line of metrics.
        step_ms: milliseconds a step.
    """
    times = [v for v in step_ms.values if math.isfinite(v)]
    usual = median(times) / 1000 if times else 0.0
    if silent_s < max(STALL_S, STALL_STEPS * usual):
        return None
    return Alert("stall", "stall", f"nothing was written for {silent_s:.0f} s: look at Logs and at the machine")
