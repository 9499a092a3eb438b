"""The micro-batch that suits the machine, at the same rows a step: the largest that fits a GPU, the fastest on a CPU.

Rows are numbered through the micro-batches of a step, so that a step has the same rows whatever its micro-batch is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from microgpt.config.schema import TrainConfig
from microgpt.data.mixture import Prepared
from microgpt.errors import is_out_of_memory
from microgpt.model.gpt import GPT
from microgpt.training.estimate import activation_bytes
from microgpt.training.schedule import Schedule, Segment
from microgpt.training.trial import Trial

ROUNDS = 3  # each size is timed so often, in turns, and its best time counts: a busy moment hits all alike
MEMORY_SHARE = 0.5  # of what is free when the search begins, for one micro-batch on a CPU
GPU_SHARE = 0.92  # of a GPU's memory; validations and fragments need some too
STEADY = Schedule(
    (Segment(0, 1_000_000, 0, 0.0, 1e-3, 1.0, "constant", 1.0),)
)  # of no matter: weights are thrown away


def divisors(rows: int) -> list[int]:
    """Micro-batches that divide the rows of a step, smallest first."""
    return [size for size in range(1, rows + 1) if rows % size == 0]


def thinned(sizes: list[int]) -> list[int]:
    """Sizes at least half as large again as the one before, and the last: what lies between differs little."""
    kept: list[int] = []
    for size in sizes:
        if not kept or size >= 1.5 * kept[-1] or size == sizes[-1]:
            kept.append(size)
    return kept


def largest(sizes: Sequence[int], fits: Callable[[int], bool]) -> int | None:
    """The largest size that fits, by steps that double along the list and then halve; None where none does.

    Args:
        sizes: smallest first.
        fits: whether a size does; if one does not, no larger one is tried.
    """
    good, bad, stride = -1, len(sizes), 1
    while good + 1 < bad:
        at = min(good + stride, bad - 1)
        if fits(sizes[at]):
            good, stride = at, stride * 2
        else:
            bad = at
            break
    while bad - good > 1:
        middle = (good + bad) // 2
        good, bad = (middle, bad) if fits(sizes[middle]) else (good, middle)
    return None if good < 0 else sizes[good]


class _Tries:
    """Steps in micro-batches of a size, on a copy of the model.

    Args:
        told: called with the number of steps made; what it raises ends the search.
    """

    def __init__(self, trial: Trial, rows: int, told: Callable[[int], None]) -> None:
        self.trial, self.rows, self.told, self.count = trial, rows, told, 0
        self.cuda = trial.device.type == "cuda"

    def seconds(self, size: int, accumulate: int) -> float | None:
        """How long a step takes, or None where memory does not suffice."""
        self.count += 1
        self.told(self.count)
        self.trial.batches.batch_size, self.trial.accumulate = size, accumulate
        started = time.perf_counter()
        try:
            self.trial.step()  # reads the loss, so that a GPU has finished
            return time.perf_counter() - started
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        self.trial.optimizer.zero_grad(set_to_none=True)  # out here, where the exception holds nothing any more
        return None

    def fits(self, size: int) -> bool:
        """Whether two steps on the GPU leave some memory free: the second has the optimizer's state too."""
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        done = all(self.seconds(size, min(2, self.rows // size)) is not None for _ in range(2))
        total = torch.cuda.get_device_properties(self.trial.device).total_memory
        return done and torch.cuda.max_memory_reserved() <= GPU_SHARE * total


def fastest(tries: _Tries, sizes: list[int], tokens: int) -> tuple[int, list[dict[str, Any]]]:
    """The size with the most tokens a second, and what each did.

    Args:
        tries: makes steps.
        sizes: smallest first.
        tokens: of a step.
    """
    best: dict[int, float] = {}
    alive = list(sizes)
    for number in range(1 + ROUNDS):  # the first is a warm-up
        for size in list(alive):
            seconds = tries.seconds(size, tries.rows // size)
            if seconds is None:  # nor would a larger one fit
                alive = [s for s in alive if s < size] or sizes[:1]
                break
            if number:
                best[size] = min(seconds, best.get(size, seconds))
    timed = {s: t for s, t in best.items() if s in alive}
    found = min(timed, key=lambda s: timed[s]) if timed else alive[0]
    tried: list[dict[str, Any]] = [
        {
            "batch_size": s,
            "accumulate": tries.rows // s,
            "tokens_per_s": round(tokens / timed[s]) if s in timed else 0,
        }
        for s in sizes
    ]
    return found, tried


def find_batch_size(
    model: GPT,
    config: TrainConfig,
    prepared: Prepared,
    device: str,
    precision: str,
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """The micro-batch of a run, as find_batch_size.json holds it.

    Args:
        model: with its initial weights; copied.
        config: every auto resolved.
        prepared: the data of the run.
        device, precision: chosen by `runtime`.
        told: called with the number of steps made; what it raises ends the search.

    Returns:
        `found` (`data.batch_size` and `trainer.accumulate`), `rows` of a step, `rule`, `tried`, `seconds`.
    """
    started = time.monotonic()
    rows = (config.data.batch_size or 1) * config.trainer.accumulate
    tries = _Tries(Trial(model, config, prepared, STEADY, device, precision), rows, told)
    if tries.cuda:
        rule = f"the largest micro-batch that leaves {1 - GPU_SHARE:.0%} of the GPU's memory free"
        outcome: dict[int, bool] = {}

        def fits(size: int) -> bool:
            outcome[size] = tries.fits(size)
            return outcome[size]

        found = largest(divisors(rows), fits) or 1
        tried: list[dict[str, Any]] = [
            {"batch_size": s, "accumulate": rows // s, "fits": ok} for s, ok in sorted(outcome.items())
        ]
    else:
        import psutil

        allowed = MEMORY_SHARE * psutil.virtual_memory().available
        one = activation_bytes(_with_rows(config, 1), prepared.tokenizer.vocab_size)
        sizes = thinned([s for s in divisors(rows) if s == 1 or s * one <= allowed])
        rule = f"the most tokens a second, with at most {MEMORY_SHARE:.0%} of the free memory for a micro-batch"
        found, tried = fastest(tries, sizes, rows * config.model.block_size)
    return {
        "found": {"data.batch_size": found, "trainer.accumulate": rows // found},
        "before": {"data.batch_size": config.data.batch_size, "trainer.accumulate": config.trainer.accumulate},
        "rows": rows,
        "rule": rule,
        "tried": tried,
        "seconds": round(time.monotonic() - started, 3),
    }


def _with_rows(config: TrainConfig, rows: int) -> TrainConfig:
    import copy

    changed = copy.deepcopy(config)
    changed.data.batch_size = rows
    return changed
