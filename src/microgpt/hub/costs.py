"""What the form's run will cost, measured against runs of this machine where there are any."""

from __future__ import annotations

import functools
import math
import platform
from pathlib import Path

from microgpt.config.build import build
from microgpt.config.schema import ModelConfig, TrainConfig
from microgpt.errors import MicrogptError
from microgpt.files import human_bytes
from microgpt.hub.datasets import size_of
from microgpt.hub.series import duration, number
from microgpt.hub.watch import Watched
from microgpt.runs.find import all_runs
from microgpt.runs.folder import read_config
from microgpt.training.estimate import estimate, flops_per_token


@functools.lru_cache(maxsize=4)
def measured_rate(outputs: Path, newest: str) -> float:
    """Operations a second that the newest run of this machine has reached, 0 where there is none.

    Args:
        outputs: where the runs are.
        newest: anything that changes with a new run, so that it is measured again.
    """
    for run in reversed(all_runs(outputs)[-4:]):
        if run.facts.get("host") not in (None, platform.node()):
            continue
        try:
            raw = read_config(run.path).get("model", {})
            model = build(ModelConfig, raw)
        except MicrogptError:
            continue
        seen = Watched(run.path)
        seen.look()
        speeds = [v for v in seen.of("perf/tokens_per_s").values if math.isfinite(v)]
        vocab_size = run.facts.get("vocab_size", 0) or 512
        if len(speeds) >= 2:
            return sorted(speeds)[len(speeds) // 2] * flops_per_token(model, int(vocab_size))
    return 0.0


def newest_rate(outputs: Path) -> float:
    """As `measured_rate`, measured again when there is a newer run; slow the first time, so better in a thread."""
    return measured_rate(outputs, str((outputs / "latest").resolve()))


@functools.lru_cache(maxsize=8)
def _size(key: str, mixture: tuple[str, ...], path: tuple[str, ...], corpus: str) -> tuple[int, int]:
    from microgpt.config.schema import DataConfig

    return size_of(DataConfig(path=list(path), corpus=corpus, mixture=list(mixture)))


def cost_rows(config: TrainConfig, outputs: Path) -> list[tuple[str, str]]:
    """What to tell of a run before it is started: (what, about how much)."""
    data = config.data
    size, characters = _size("", tuple(data.mixture), tuple(data.path), data.corpus)
    rate = newest_rate(outputs)
    found = estimate(config, size, characters, rate, config.device.name in ("cuda", "mps"))
    return [
        ("parameters", f"{found.parameters:,}"),
        ("vocabulary", f"about {found.vocab_size:,} tokens" if size else "not known before the data is read"),
        ("memory", f"about {human_bytes(found.memory_bytes)}"),
        ("steps", f"{found.steps:,}" + (" (auto)" if config.trainer.max_steps is None else "")),
        ("tokens", f"{number(found.tokens)}" + (f", the data {found.epochs:.1f} times" if size else "")),
        ("time", f"about {duration(found.seconds)}" + (", by the last run" if rate else ", a guess")),
        ("data", human_bytes(size) if size else "not at hand: it is fetched at the start"),
    ]
