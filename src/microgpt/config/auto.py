"""What `auto` means: the rules that fill in every key the user left open, once, before training."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

from microgpt.config import depth
from microgpt.config.schema import TrainConfig
from microgpt.runtime import cpu_threads

TOKENS_A_BATCH = 4096
EVALUATIONS = 20
LAB_CHECKPOINTS = 100
EPOCHS, MIN_STEPS, MAX_STEPS = 4, 100, 5000
EVAL_SHARE = 0.3  # a validation token costs a third of a training token: 0.3 of the tokens is a tenth of the time
EVAL_FLOPS = 50_000_000_000  # validations of fewer operations, all together, are done in a second: none is spared
EVAL_BATCHES = 8  # fewer say little: a short run has fewer validations rather than smaller ones
CALL_FLOPS = 2e8  # a training_step of fewer operations is mostly overhead
THREAD_FLOPS = 1e8  # of a micro-batch: less than this for each thread costs more to hand out than it saves


@dataclass(frozen=True)
class Facts:
    """What the rules look at beside the config.

    Attributes:
        val_rows: rows of the validation set.
        flops_per_token: of the model, forward and backward.
        train_tokens: tokens of the training set.
        parameters: all trained numbers of the model.
    """

    val_rows: int
    flops_per_token: int
    train_tokens: int = 0
    parameters: int = 0


def vocabulary(configured: int | None, text_bytes: int) -> int:
    """Tokens of a trained vocabulary: 4,096, or one for every 64 bytes of a small corpus, so that each is seen."""
    if configured is not None:
        return configured
    return max(512, min(4096, text_bytes // 64 // 64 * 64))


def threads(configured: int, micro_batch_flops: float) -> int:
    """CPU threads for a micro-batch of so many operations: as configured, or as many as it keeps busy."""
    return configured or int(max(1, min(cpu_threads(), micro_batch_flops // THREAD_FLOPS)))


def resolved_shape(config: TrainConfig, train_tokens: int, parameters: int = 0) -> TrainConfig:
    """The config with the autos filled that need no model: batch, steps, learning rate and its schedule, intervals.

    Args:
        config: with autos.
        train_tokens: tokens of the training set.
        parameters: all trained numbers of the model, which `model.depth` asks for.
    """
    c = copy.deepcopy(config)
    if c.model.depth is not None and parameters:
        _dialled(c, train_tokens, parameters)
    if c.data.batch_size is None:
        c.data.batch_size = max(1, TOKENS_A_BATCH // c.model.block_size)
    if c.trainer.max_steps is None:
        tokens_a_step = c.data.batch_size * c.trainer.accumulate * c.model.block_size
        c.trainer.max_steps = max(MIN_STEPS, min(MAX_STEPS, EPOCHS * train_tokens // tokens_a_step))
    if c.optimizer.schedule is None:  # what is seen again is learned by heart while the rate stays high
        read = c.trainer.max_steps * c.data.batch_size * c.trainer.accumulate * c.model.block_size
        c.optimizer.schedule = "wsd" if read <= train_tokens else "linear"
    if c.optimizer.learning_rate is None:
        c.optimizer.learning_rate = min(0.01, 0.64 / c.model.n_embd)  # falls as 1/width (arXiv:2203.03466)
    if c.optimizer.warmup_steps is None:
        c.optimizer.warmup_steps = c.trainer.max_steps // 50
    if c.trainer.eval_interval is None:
        affords_one = math.ceil(EVAL_BATCHES / EVAL_SHARE / c.trainer.accumulate)
        c.trainer.eval_interval = min(c.trainer.max_steps, max(affords_one, c.trainer.max_steps // EVALUATIONS))
    if c.lab:
        c.trainer.keep_checkpoints = max(c.trainer.keep_checkpoints, LAB_CHECKPOINTS + 1)
        if c.trainer.checkpoint_interval is None:
            c.trainer.checkpoint_interval = max(1, c.trainer.max_steps // LAB_CHECKPOINTS)
    if c.trainer.checkpoint_interval is None:
        c.trainer.checkpoint_interval = c.trainer.eval_interval
    return c


def _dialled(c: TrainConfig, train_tokens: int, parameters: int) -> None:
    """Fill batch and steps by the rules of `model.depth` where they are open."""
    given = None if c.data.batch_size is None else c.data.batch_size * c.trainer.accumulate
    plan = depth.plan(parameters, c.model.block_size, train_tokens, given)
    if c.data.batch_size is None:
        c.data.batch_size = max(1, plan.batch_size * plan.accumulate // c.trainer.accumulate)
        if c.trainer.accumulate == 1:
            c.data.batch_size, c.trainer.accumulate = plan.batch_size, plan.accumulate
    if c.trainer.max_steps is None:
        c.trainer.max_steps = plan.steps


def resolved(config: TrainConfig, facts: Facts) -> TrainConfig:
    """The config with every auto filled."""
    c = resolved_shape(config, facts.train_tokens, facts.parameters)
    rows = c.data.batch_size or 1
    interval = c.trainer.eval_interval or 1
    tokens_a_step = rows * c.trainer.accumulate * c.model.block_size
    if c.trainer.eval_batches is None:
        validations = max(1, (c.trainer.max_steps or 1) // interval)
        cheap = EVAL_FLOPS * 3 // max(1, facts.flops_per_token) // c.model.block_size // rows // validations
        affordable = max(EVAL_BATCHES, cheap, int(EVAL_SHARE * interval * c.trainer.accumulate))
        c.trainer.eval_batches = 0 if affordable * rows >= facts.val_rows else affordable
    c.device.threads = threads(c.device.threads, facts.flops_per_token * rows * c.model.block_size)
    if c.trainer.steps_per_call is None:
        step = facts.flops_per_token * tokens_a_step
        c.trainer.steps_per_call = int(min(50, max(1, CALL_FLOPS // max(1, step))))
    return c
