"""The learning-rate range test: which rates a model learns at, tried in a hundred steps before the run.

Smith 2015, arXiv:1506.01186: the rate rises from step to step, here by a constant factor; the loss falls, then turns
where the rate becomes too large. All learning rates are scaled together, Muon's and AdamW's, so that one factor is
found and their ratio stays.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from microgpt.config.schema import OptimizerConfig, TrainConfig
from microgpt.data.mixture import Prepared
from microgpt.errors import DivergedError
from microgpt.model.gpt import GPT
from microgpt.training.schedule import Schedule
from microgpt.training.trial import Trial

LOW, HIGH, STEPS = 0.01, 100.0, 100
SMOOTHING = 0.8  # of the loss over steps, as 25 of them are a decade of the rate
TURNED = 0.5  # the test ends where the smoothed loss is above its lowest by this share of what it had fallen
BACK = 4.0  # the rate is lower than that of the lowest loss, where it still fell
RULE = f"the factor at the lowest smoothed loss, divided by {BACK:g}"
MAX_RATE = 10.0  # as config/schema.py allows
SHOWN = 9


@dataclass(frozen=True)
class Rising(Schedule):
    """A factor that rises from LOW to HIGH, by the same ratio each step."""

    def factor(self, step: int) -> float:
        return LOW * (HIGH / LOW) ** (step / (STEPS - 1))


@dataclass(frozen=True)
class Point:
    """One step of the test.

    Attributes:
        factor: times the rates of the config.
        loss: before the step's update, in nats a token.
        smoothed: mean of the losses so far, the late ones weighing more.
    """

    factor: float
    loss: float
    smoothed: float


def smooth(losses: list[float]) -> list[float]:
    """Exponential means that are not drawn towards zero at the start (Kingma and Ba 2014, arXiv:1412.6980)."""
    mean, found = 0.0, list[float]()
    for number, loss in enumerate(losses, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        found.append(mean / (1 - SMOOTHING**number))
    return found


def chosen(points: list[Point]) -> float:
    """The factor by RULE, within the range of the test.

    Args:
        points: in the order of their steps; at least one.
    """
    return max(LOW, min(points, key=lambda p: p.smoothed).factor / BACK)


def range_test(
    model: GPT,
    config: TrainConfig,
    prepared: Prepared,
    device: str,
    precision: str,
    told: Callable[[int], None] = lambda done: None,
) -> list[Point]:
    """Make the steps of the test on a copy of the model, until the loss has turned.

    Args:
        model: with its initial weights.
        config: every auto resolved.
        prepared: the data of the run, of which the first batches are used.
        device, precision: chosen by `runtime`.
        told: called with the steps done; what it raises ends the test.
    """
    trial = Trial(model, config, prepared, Rising(()), device, precision)
    losses: list[float] = []
    for step in range(STEPS):
        try:
            losses.append(trial.step())
        except DivergedError:
            break
        told(step + 1)
        means = smooth(losses)
        lowest = min(means)
        if means[-1] - lowest > TURNED * (losses[0] - lowest) and means[-1] > lowest and step > STEPS // 4:
            break
    factor = Rising(()).factor
    means = smooth(losses)
    return [Point(factor(i), loss, mean) for i, (loss, mean) in enumerate(zip(losses, means))] or [
        Point(LOW, 0.0, 0.0)
    ]


def scaled(optimizer: OptimizerConfig, factor: float) -> dict[str, float]:
    """The rates times a factor, in three digits, so that what is written is what is used."""
    keys = ("learning_rate", "muon_learning_rate") if optimizer.name == "muon" else ("learning_rate",)
    return {key: float(f"{min(MAX_RATE, (getattr(optimizer, key) or 0.0) * factor):.3g}") for key in keys}


def find_learning_rates(
    model: GPT,
    config: TrainConfig,
    prepared: Prepared,
    device: str,
    precision: str,
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The rates that the test finds, and how, as find_lr.json holds it; arguments as of `range_test`.

    Returns:
        `found` (keys of the optimizer's config and their values), `factor`, `rule`, `points`, `seconds`, `config`.
    """
    started = time.monotonic()
    points = range_test(model, config, prepared, device, precision, told)
    factor = chosen(points)
    return {
        "found": scaled(config.optimizer, factor),
        "before": scaled(config.optimizer, 1.0),
        "factor": factor,
        "rule": RULE,
        "source": "Smith 2015, arXiv:1506.01186",
        "points": [{"factor": p.factor, "loss": p.loss, "smoothed": p.smoothed} for p in points],
        "seconds": round(time.monotonic() - started, 3),
    }


def rows_of(result: dict[str, Any]) -> list[tuple[str, ...]]:
    """Some points of the test as rows of a table: rates, smoothed loss, a bar, and a mark at the chosen one."""
    points, before = result["points"], result["before"]
    low = min(p["smoothed"] for p in points)
    high = max(p["smoothed"] for p in points)
    near = min(range(len(points)), key=lambda i: abs(points[i]["factor"] / result["factor"] - 1))
    shown = sorted({near, len(points) - 1, *range(0, len(points), max(1, len(points) // SHOWN))})
    rows: list[tuple[str, ...]] = []
    for i in shown:
        point = points[i]
        rates = [f"{rate * point['factor']:.3g}" for rate in before.values()]
        width = round(24 * (point["smoothed"] - low) / max(1e-9, high - low))
        rows.append((*rates, f"{point['smoothed']:.3f}", "#" * max(1, width) + ("  <- chosen" if i == near else "")))
    return rows


def picture(result: dict[str, Any]) -> bytes:
    """The test as a PNG: loss over the factor, with the chosen one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes: Any = figure.subplots()
    factors = [p["factor"] for p in result["points"]]
    axes.plot(factors, [p["loss"] for p in result["points"]], linewidth=0.6, color="gray", label="loss of a step")
    axes.plot(factors, [p["smoothed"] for p in result["points"]], linewidth=1.5, label="smoothed")
    rates = ", ".join(f"{key}={value:g}" for key, value in result["found"].items())
    axes.axvline(result["factor"], color="black", linestyle="--", linewidth=1, label=f"chosen: {rates}")
    axes.set_xscale("log")
    axes.set_xlabel("times the learning rates of the config")
    axes.set_ylabel("loss, nats a token")
    axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
