"""transformers.Trainer on blocks of random tokens, as its documentation shows; prints tokens a second."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from typing import Any, TextIO

import numpy as np
import torch
import transformers
from datasets import Dataset
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments


class Clock(TrainerCallback):
    """Notes when each step ends, and how long it took."""

    def __init__(self, noted: TextIO) -> None:
        self.ends: list[float] = []
        self.noted = noted

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.ends.append(time.perf_counter())
        if len(self.ends) > 1:
            print(self.ends[-1] - self.ends[-2], file=self.noted)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, value in (("layers", 4), ("width", 128), ("heads", 4), ("block", 64), ("rows", 12), ("vocab", 65)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--times", default=os.devnull, help="a file that gets the seconds of each step")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    config = GPT2Config(
        vocab_size=given.vocab, n_positions=given.block, n_embd=given.width, n_layer=given.layers, n_head=given.heads,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    rows = draw.integers(0, given.vocab, (max(64, given.rows * 8), given.block)).tolist()
    data = Dataset.from_dict({"input_ids": rows, "labels": rows})
    with tempfile.TemporaryDirectory() as folder, open(given.times, "w", buffering=1) as noted:
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=given.rows, max_steps=given.steps, logging_steps=10, report_to=[],
            use_cpu=True, save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        clock = Clock(noted)
        trainer = Trainer(GPT2LMHeadModel(config), arguments, train_dataset=data, callbacks=[clock])
        trainer.train()
    gaps = np.diff(clock.ends)[len(clock.ends) // 4 :]
    print(json.dumps({"steps": len(clock.ends), "tokens_per_s": given.rows * given.block / float(np.median(gaps))}))


if __name__ == "__main__":
    main()
