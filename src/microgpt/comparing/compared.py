"""A run as it is compared: its numbers and its curves, read from its folder alone."""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from microgpt.errors import ModelError
from microgpt.runs.find import Run
from microgpt.runs.folder import FINISHED, read_config, read_metrics

TRAIN, LOSS, BPB = "train/loss", "val/loss", "val/bpb"
TOKENS, SPEED = "progress/tokens", "perf/tokens_per_s"
#: beyond this a number was not written by a run (and no other program holds it exactly)
LARGEST = 2**63
#: what training is measured by: the x axes
AXES = ("step", "tokens", "flops", "seconds")
#: what the training loss is smoothed over, as a share of the run
WINDOW = 0.02
#: most points of a curve that is drawn; more than a chart has pixels for would only make the page slow
POINTS = 160

Points = list[tuple[int, float]]


@dataclass(frozen=True)
class Compared:
    """One run.

    Attributes:
        run: its folder and facts.
        config: config.yaml by dotted key; empty where the run ended before it had one.
        words: the overrides that it was started with, by key.
        metrics: metrics.jsonl, the keys that are needed: key to step to value.
    """

    run: Run
    config: dict[str, Any]
    words: dict[str, str]
    metrics: dict[str, dict[int, float]]

    @cached_property
    def status(self) -> str:
        """FINISHED, RUNNING, KILLED or FAILED."""
        return self.run.status or "UNKNOWN"

    @property
    def error(self) -> str:
        """Why it failed, or nothing."""
        return "" if self.status == FINISHED else str(self.run.facts.get("error", ""))

    @property
    def id(self) -> str:
        """The folder, which `run=` of every other command takes."""
        return str(self.run.path)

    def fact(self, key: str) -> float | None:
        """A number of run.json, or None."""
        value = self.run.facts.get(key)
        usable = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < LARGEST
        return value if usable else None

    def points(self, key: str) -> Points:
        """(step, value) of a metric in order, without what is not finite."""
        return [(s, v) for s, v in sorted(self.metrics.get(key, {}).items()) if math.isfinite(v)]

    @cached_property
    def steps(self) -> int:
        """Optimizer steps that were done."""
        known = self.fact("steps") if self.status == FINISHED else None
        return int(known) if known is not None else max(self.metrics.get(TRAIN, {0: 0.0}))

    @property
    def tokens(self) -> float:
        """Tokens that were trained on."""
        known = self.fact("tokens") if self.status == FINISHED else None
        return known if known is not None else max(self.metrics.get(TOKENS, {}).values(), default=0.0)

    @property
    def flops(self) -> float | None:
        """Floating-point operations of its training, forward and backward, as the model counts them."""
        return self.at("flops", self.steps)

    @cached_property
    def seconds(self) -> float:
        """Seconds that its steps took, without validation and saving."""
        known = self.fact("train_seconds") if self.status == FINISHED else None
        return known if known is not None else (self._clock[-1][1] if self._clock else 0.0)

    @cached_property
    def best_step(self) -> int | None:
        """The step of the best validation loss; None where none was finite."""
        known = self.fact("best_step") if self.status == FINISHED else None
        if known is not None and self.fact("best_val_loss") is not None:
            return int(known)
        validations = self.points(LOSS)
        return min(validations, key=lambda point: point[1])[0] if validations else None

    @property
    def best_loss(self) -> float | None:
        """The lowest validation loss, nats a token."""
        known = self.fact("best_val_loss") if self.status == FINISHED else None
        return known if known is not None else self._at_best(LOSS)

    @property
    def best_bpb(self) -> float | None:
        """Bits a byte there; None where the tokenizer knows no bytes."""
        known = self.fact("best_val_bpb") if self.status == FINISHED else None
        return known if known is not None else self._at_best(BPB)

    def _at_best(self, key: str) -> float | None:
        value = self.metrics.get(key, {}).get(self.best_step if self.best_step is not None else -1)
        return value if value is not None and math.isfinite(value) else None

    @cached_property
    def _progress(self) -> Points:
        return [(0, 0.0), *((s, t) for s, t in self.points(TOKENS) if s > 0)]

    @cached_property
    def _clock(self) -> list[tuple[float, float]]:
        """(tokens, seconds of training) wherever the speed was measured.

        A speed is the tokens since the measurement before over the seconds that their steps took, so seconds add
        up to what run.json holds in the end, and a pause before a resume counts for nothing.
        """
        done, seconds = 0.0, 0.0
        found = [(0.0, 0.0)]
        tokens = self.metrics.get(TOKENS, {})
        for step, speed in self.points(SPEED):
            if step in tokens and speed > 0 and tokens[step] > done:
                seconds += (tokens[step] - done) / speed
                done = tokens[step]
                found.append((done, seconds))
        return found

    def at(self, axis: str, step: int) -> float | None:
        """How far a run was at a step, on one of AXES; None where that is not known."""
        if axis == "step":
            return float(step)
        tokens = _between([(float(s), t) for s, t in self._progress], float(step))
        if axis == "tokens":
            return tokens
        if axis == "flops":
            each = self.fact("flops_per_token")
            return None if each is None else tokens * each
        return _between(self._clock, tokens) if len(self._clock) > 1 or step == 0 else None

    @cached_property
    def smooth(self) -> Points:
        """The training loss as an exponential mean over about WINDOW of the run, without the bias of its start."""
        points = self.points(TRAIN)
        keep = 1 - 1 / max(1.0, WINDOW * len(points))
        total = weight = 0.0
        found: Points = []
        for step, value in points:
            total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
            found.append((step, total / weight))
        return found


def _between(known: list[tuple[float, float]], x: float) -> float:
    """The value at x on the line through known points, which are in order; beyond their end, the last one's."""
    if x >= known[-1][0]:
        return known[-1][1]
    low, high = 0, len(known) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if known[middle][0] <= x else (low, middle)
    (x0, y0), (x1, y1) = known[low], known[high]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0) if x1 > x0 else y0


def thinned(points: Points, most: int = POINTS) -> Points:
    """At most so many of the points, evenly by their number, the first, the last and the lowest among them."""
    if len(points) <= most:
        return points
    places = {round(i * (len(points) - 1) / (most - 2)) for i in range(most - 1)}
    places.add(min(range(len(points)), key=lambda i: points[i][1]))
    return [points[i] for i in sorted(places)]


def dotted(config: dict[str, Any]) -> dict[str, Any]:
    """A saved config by dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, dict):
            inner = cast("dict[str, Any]", value)
            found.update({f"{key}.{name}": v for name, v in inner.items()})
        else:
            found[str(key)] = value
    return found


def read(run: Run) -> Compared:
    """Read a run folder. What is missing or damaged in it leaves gaps, never an error."""
    config: dict[str, Any] = {}
    with suppress(ModelError):
        config = dotted(read_config(run.path))
    given = run.facts.get("overrides")
    words = [str(word) for word in cast("list[object]", given)] if isinstance(given, list) else []
    overrides = {w.partition("=")[0].lstrip("+~"): w.partition("=")[2] for w in words if "=" in w}
    metrics: dict[str, dict[int, float]] = {}
    with suppress(OSError):
        every = read_metrics(run.path)
        for key in (TRAIN, LOSS, BPB, TOKENS, SPEED):
            if known := {step: value for step, value in every.get(key, {}).items() if 0 <= step < LARGEST}:
                metrics[key] = known
    return Compared(run, config, overrides, metrics)
