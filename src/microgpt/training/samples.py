"""Samples on the way: what the model writes, or replies, while it learns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

from microgpt.config.schema import SamplingConfig
from microgpt.inference.chat import prompt_sheet, reply_to
from microgpt.inference.generate import generate
from microgpt.inference.torch_backend import engine_of
from microgpt.model.gpt import GPT
from microgpt.runs.folder import SAMPLES, RunFolder
from microgpt.tokenizer.base import Tokenizer
from microgpt.training.lightning import pl
from microgpt.training.module import GPTModule

EVERY_VALIDATIONS = 4
COUNT, LENGTH = 3, 80


def prompts_for(tokenizer: Tokenizer) -> list[str]:
    """The fixed prompts of a chat model; nothing for a model of plain text."""
    return prompt_sheet() if tokenizer.is_chat else []


def drawn(model: GPT, tokenizer: Tokenizer, sampling: SamplingConfig) -> list[str]:
    """Samples of a model: replies to the prompt sheet where it is for chat, texts where it is not."""
    engine = engine_of(model, sampling.num_samples)
    prompts = prompts_for(tokenizer)
    if not prompts:
        return [s.text for s in generate(engine, tokenizer, sampling)]
    return [reply_to(engine, tokenizer, [("user", p)], sampling).text for p in prompts]


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
        if crossed and math.isfinite(module.val.get("val/loss", math.nan)):
            module.use_average()
            model = module.whole_model()
            texts = drawn(model, self.tokenizer, self.sampling) if trainer.is_global_zero else []
            module.use_weights()
            line: dict[str, Any] = {"step": step, "samples": texts}
            if prompts := prompts_for(self.tokenizer):
                line["prompts"] = prompts
            self.folder.append(SAMPLES, json.dumps(line, ensure_ascii=True))
