"""A few steps of a run on a copy of its model, before the run begins, that leave no trace in it."""

from __future__ import annotations

import copy
from collections.abc import Generator
from contextlib import contextmanager

import torch

from microgpt.config.schema import TrainConfig
from microgpt.data.batches import Batch
from microgpt.data.mixture import Prepared
from microgpt.model.gpt import GPT
from microgpt.training.module import GPTModule
from microgpt.training.optimizer import MuonAdamW, make_optimizer
from microgpt.training.schedule import Schedule


class Trial(GPTModule):
    """The run's own module without Lightning's Trainer: steps are made by hand, and what it notes is told to nobody.

    Args:
        model: copied, so that the run's stays as it is.
        config: every auto resolved.
        prepared: the data of the run; the trial sees the batches of its first steps.
        schedule: learning rate by step.
        device, precision: chosen by `runtime`.
    """

    def __init__(
        self, model: GPT, config: TrainConfig, prepared: Prepared, schedule: Schedule, device: str, precision: str
    ) -> None:
        config = copy.deepcopy(config)
        config.trainer.max_bad_steps, config.trainer.auto_micro_batch = 0, False  # a fault is an answer here
        config.trainer.skip_spikes, config.data.workers = False, 0
        batches = prepared.train_batches(
            config.data, config.model.block_size, config.data.batch_size or 1, config.seed
        )
        super().__init__(copy.deepcopy(model), config, batches, schedule, None, precision)
        self.to(device)
        self.optimizer: MuonAdamW = make_optimizer(self.model, config.optimizer)

    def step(self) -> float:
        """Make the next step and return its loss, in nats a token.

        Raises:
            DivergedError: loss or gradient is not finite.
        """
        self._step(self.steps_done, self.optimizer)
        loss = float(self.records[-1].loss)
        self.records.clear()
        return loss

    def _made(self, step: int) -> list[Batch]:
        count = self.accumulate
        return [self.batches.micro_batch(step, micro, count) for micro in range(count)]

    def _tell(self, what: str) -> None:
        pass


@contextmanager
def untouched(device: str) -> Generator[None]:
    """Random numbers drawn inside are drawn again by whoever comes after."""
    cards = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=cards):
        yield
