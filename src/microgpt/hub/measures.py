"""What each metric is, why it is looked at, and how it is read."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """A metric.

    Attributes:
        key: in metrics.jsonl, or `system/...` from system.csv.
        title: for a chart.
        what, why, how: what it is, why it is looked at, how it is read.
    """

    key: str
    title: str
    what: str
    why: str
    how: str


_ALL = (
    Measure(
        "train/loss", "train loss", "mean loss of the step's tokens, in nats a token", "it is what training lowers",
        "falls fast, then slowly; it is noisy, so look at the smoothed curve",
    ),
    Measure(
        "val/loss", "validation loss", "mean loss on the fixed validation set, in nats a token",
        "the number that counts: the best checkpoint is chosen by it",
        "lower is better; rising while the train loss falls is learning by heart",
    ),
    Measure(
        "val/gap", "generalization gap", "validation loss less the running mean of the train loss",
        "shows learning by heart", "negative early; growing above 0: more data, a smaller model or fewer steps",
    ),
    Measure(
        "perf/steps_per_s", "steps/s", "optimizer steps a second", "says how long the rest will take",
        "steady is good; it falls when something else uses the machine",
    ),
    Measure(
        "perf/tokens_per_s", "tokens/s", "target tokens trained on a second, without validation and saving",
        "compares settings and machines", "higher is better; padding does not count",
    ),
    Measure(
        "val/ppl", "perplexity", "exp of the validation loss", "the same, more vivid",
        "among how many equally likely tokens the model hesitates",
    ),
    Measure(
        "val/bpb", "bits a byte", "validation loss in bits a byte of text",
        "compares models with different tokenizers", "lower is better; good small models of prose come near 1",
    ),
    Measure(
        "train/lr", "learning rate", "learning rate of AdamW; Muon's has the same shape",
        "tells a fault of the schedule from one of the model", "rises in warm-up, then falls",
    ),
    Measure(
        "train/grad_norm", "gradient norm", "norm of the gradient before clipping", "an early warning",
        "steady is good; jumps before the loss jumps, or grows without end: lower the rate",
    ),
    Measure(
        "train/update_ratio", "update ratio", "size of a step's update over the size of the weights",
        "says whether the learning rate fits", "0.001 to 0.01 in mid-run; over 0.1 is wild, under 1e-5 stands still",
    ),
    Measure(
        "system/cpu_percent", "CPU %", "load of all cores together", "shows whether the machine is used",
        "near 100 is busy; low while training waits for data or a GPU",
    ),
    Measure(
        "system/memory_used_mb", "RAM used, MB", "memory in use on the machine", "running out ends processes",
        "keep it well under the machine's total",
    ),
    Measure(
        "system/process_mb", "process RSS, MB", "resident memory of the training process",
        "shows what the run itself needs", "flat after the start; growing steadily is a leak",
    ),
    Measure(
        "system/memory_free_mb", "RAM free, MB", "memory that could still be had", "room for a larger model or batch",
        "near 0 the machine begins to swap",
    ),
    Measure(
        "perf/step_ms", "ms a step", "time of a step", "the same as steps/s, for long steps",
        "jumps come from other programs, or from data",
    ),
    Measure(
        "perf/data_wait_pct", "waiting for data, %", "share of a step spent on making its batch",
        "time that is lost", "under 2 is fine; else raise data.workers",
    ),
    Measure(
        "perf/mfu", "MFU, %", "operations a second over those of a large matrix product here",
        "how well the machine is used", "30 to 60 is good on a GPU; tiny models stay far below",
    ),
    Measure(
        "perf/mem_peak_mb", "peak memory, MB", "the most memory so far", "says what fits", "grows early, then stays",
    ),
    Measure(
        "progress/tokens", "tokens seen", "target tokens trained on so far", "compares runs of different batch sizes",
        "a straight line",
    ),
    Measure(
        "progress/eta_s", "seconds left", "at the present speed, without validations", "when to come back",
        "falls in a straight line",
    ),
)  # fmt: skip
MEASURES = {measure.key: measure for measure in _ALL}
CATEGORIES: dict[str, tuple[str, ...]] = {
    "Core": ("train/loss", "val/loss", "val/gap", "perf/steps_per_s", "perf/tokens_per_s"),
    "Eval": ("val/loss", "val/gap", "val/ppl", "val/bpb", "train/lr"),
    "Optimizer": ("train/grad_norm", "train/update_ratio", "train/lr", "train/loss"),
    "System": ("system/cpu_percent", "system/memory_used_mb", "system/process_mb", "system/memory_free_mb"),
    "Speed": (
        "perf/tokens_per_s", "perf/steps_per_s", "perf/step_ms", "perf/data_wait_pct", "perf/mfu", "perf/mem_peak_mb",
        "progress/tokens", "progress/eta_s",
    ),
}  # fmt: skip
OTHER = "Other"


def measure_of(key: str) -> Measure:
    """A metric by its key; of one that is not known here only the name is told."""
    return MEASURES.get(key) or Measure(key, key, "a metric of this run", "", "")


def categories(keys: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Categories with their metrics; those of the run that belong to none make one more."""
    known = {key for group in CATEGORIES.values() for key in group}
    rest = tuple(sorted(key for key in keys if key not in known))
    return {**CATEGORIES, **({OTHER: rest} if rest else {})}
