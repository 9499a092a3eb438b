"""Samples on the way: what the model writes while it learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytorch_lightning as pl

from microgpt.config.schema import SamplingConfig
from microgpt.inference.generate import generate
from microgpt.runs.folder import SAMPLES, RunFolder
from microgpt.tokenizer.base import Tokenizer
from microgpt.training.module import GPTModule

EVERY_VALIDATIONS = 4
COUNT, LENGTH = 3, 80


class Samples(pl.Callback):
    """Appends a few samples to samples.jsonl with validations; sampling has its own generator and moves nothing.

    Args:
        folder: the run's.
        tokenizer: decodes.
        sampling: how to draw; fewer and shorter samples than asked for at the end.
        interval: steps between samples, met at the next validation; 0 is every fourth validation.
    """

    def __init__(self, folder: RunFolder, tokenizer: Tokenizer, sampling: SamplingConfig, interval: int) -> None:
        self.folder, self.tokenizer, self.interval = folder, tokenizer, interval
        few = min(COUNT, sampling.num_samples)
        self.sampling = replace(sampling, num_samples=few, max_new_tokens=min(LENGTH, sampling.max_new_tokens))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        step, every = module.steps_done, module.config.trainer.eval_interval or 1
        interval = self.interval or every * EVERY_VALIDATIONS
        crossed = step // interval > max(0, step - every) // interval
        if trainer.is_global_zero and crossed and math.isfinite(module.val.get("val/loss", math.nan)):
            module.use_average()
            texts = [s.text for s in generate(module.model, self.tokenizer, self.sampling)]
            module.use_weights()
            self.folder.append(SAMPLES, json.dumps({"step": step, "samples": texts}, ensure_ascii=True))
