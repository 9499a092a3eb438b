"""Run folders as training writes them, by its own writer, without training."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microgpt.config.build import plain
from microgpt.config.compose import compose
from microgpt.runs.folder import FINISHED, RunFolder

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a run below ./outputs of the test's own folder, which becomes the current one."""
    monkeypatch.chdir(tmp_path)
    base = plain(compose([]))
    seconds = itertools.count()

    def written(
        where: str,
        losses: dict[int, float],
        *,
        words: tuple[str, ...] = (),
        settings: dict[str, Any] | None = None,
        bytes_a_nat: float = 1.5,
        tokens_a_step: int = 100,
        speed: float = 1000.0,
        **facts: Any,
    ) -> Path:
        folder = RunFolder(tmp_path / "outputs" / where)
        config = {k: dict(v) if isinstance(v, dict) else v for k, v in base.items()}
        for key, value in (settings or {}).items():
            group, _, leaf = key.rpartition(".")
            (config[group] if group else config)[leaf] = value
        folder.write_config(config)
        for step, loss in losses.items():
            training = {"train/loss": loss - 0.1, "progress/tokens": step * tokens_a_step, "perf/tokens_per_s": speed}
            folder.log_metrics(step, training)
            folder.log_metrics(step, {"val/loss": loss, "val/bpb": loss * bytes_a_nat})
        best = min(losses, key=lambda step: losses[step], default=0)
        known: dict[str, Any] = {
            "stage": "train", "status": FINISHED, "started": f"2026-11-28T00:00:{next(seconds):02}",
            "overrides": list(words), "parameters": 1000, "flops_per_token": 6000, "vocab_size": 27,
            "max_steps": max(losses, default=0), "data": {"fingerprint": "a"}, "host": "one", "device": "cpu",
        }  # fmt: skip
        if losses:
            known |= {
                "best_val_loss": losses[best], "best_val_bpb": losses[best] * bytes_a_nat, "best_step": best,
                "steps": max(losses), "tokens": max(losses) * tokens_a_step,
                "train_seconds": max(losses) * tokens_a_step / speed,
            }  # fmt: skip
        folder.update(**{**known, **facts})
        folder.close()
        return folder.path

    return written


@pytest.fixture
def sweep(write: Write) -> Path:
    """Twelve trials: the learning rate decides, the seed does not, and the last two were cut off and failed."""
    for number in range(12):
        rate, seed = (0.001, 0.003, 0.01)[number % 3], number // 3
        end = 2.0 + abs(number % 3 - 2) * 0.5 + 0.01 * seed
        write(
            f"2026-11-28/00-00-00-sweep/{number}",
            {step: end + 20 / step for step in (10, 20, 40, 80)} if number < 11 else {},
            words=("data=names", f"optimizer.learning_rate={rate}", f"seed={seed}"),
            settings={"optimizer.learning_rate": rate, "seed": seed},
            speed=1000.0 / (1 + number % 2),
            **(
                {}
                if number < 10
                else {"status": "RUNNING" if number == 10 else "FAILED", "error": "it left the numbers"}
            ),
        )
    return Path("outputs/2026-11-28/00-00-00-sweep")
