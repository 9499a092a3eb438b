"""The values of a metric over the steps, as they come, and what is told of them."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Facts:
    """What is told of a metric beside its curve; None where there is no finite value.

    Attributes:
        latest: the last value, which may be NaN.
        delta: what it has changed by since the value before it.
        low, high: of the finite values.
        count: of all values.
    """

    latest: float | None
    delta: float | None
    low: float | None
    high: float | None
    count: int


class Series:
    """Steps and values; the last value of a step counts, as a resumed run writes some steps again.

    Attributes:
        steps: ascending.
        values: as many.
        version: grows with every change.
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: list[float] = []
        self.version = 0

    def add(self, step: int, value: float) -> None:
        """Take a value."""
        self.version += 1
        if not self.steps or step > self.steps[-1]:
            self.steps.append(step)
            self.values.append(value)
            return
        at = bisect_left(self.steps, step)
        if self.steps[at] == step:
            self.values[at] = value
        else:
            self.steps.insert(at, step)
            self.values.insert(at, value)

    def count(self, limit: int | None = None) -> int:
        """How many values there are up to a step."""
        return len(self.steps) if limit is None else bisect_right(self.steps, limit)

    def at(self, step: float) -> tuple[int, float] | None:
        """The step nearest to one, and its value."""
        if not self.steps:
            return None
        right = min(bisect_left(self.steps, step), len(self.steps) - 1)
        best = min((max(0, right - 1), right), key=lambda i: abs(self.steps[i] - step))
        return self.steps[best], self.values[best]

    def facts(self, limit: int | None = None) -> Facts:
        """Latest, delta, smallest, largest, number."""
        count = self.count(limit)
        values = self.values[:count]
        finite = [v for v in values if math.isfinite(v)]
        if not values:
            return Facts(None, None, None, None, 0)
        delta = values[-1] - values[-2] if count > 1 else None
        if delta is not None and not math.isfinite(delta):
            delta = None
        low, high = (min(finite), max(finite)) if finite else (None, None)
        return Facts(values[-1], delta, low, high, count)


def smoothed(values: Sequence[float], keep: float) -> list[float]:
    """A running mean that keeps a share of the old, free of the bias of its start (as Adam's moments are).

    Values that are not finite are passed over.
    """
    found: list[float] = []
    mean, weight = 0.0, 0.0
    for value in values:
        if math.isfinite(value):
            mean = keep * mean + (1 - keep) * value
            weight = keep * weight + (1 - keep)
        found.append(mean / weight if weight else math.nan)
    return found


def number(value: float | None) -> str:
    """A value in few columns: `2.3011`, `0.00042`, `12.4k`, `nan`."""
    if value is None:
        return "-"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1e9:
        return f"{value / 1e9:.3g}G"
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 100:
        return f"{value:.1f}"
    if size >= 0.01 or value == 0:
        return f"{value:.4f}".rstrip("0").rstrip(".") if size < 10 else f"{value:.2f}"
    return f"{value:.2e}"


def duration(seconds: float) -> str:
    """Seconds as people say them: `42 s`, `3:07`, `2 h 05 min`, `3 d 4 h`."""
    if not math.isfinite(seconds) or seconds < 0:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60}:{whole % 60:02} min"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
