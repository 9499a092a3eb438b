"""What a config will cost, before it runs and without torch: parameters, memory, time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from microgpt.config.auto import resolved_shape, threads, vocabulary
from microgpt.config.schema import ModelConfig, TrainConfig
from microgpt.model.shapes import mlp_width, parameter_shapes

CORE_FLOPS, GPU_FLOPS = 4e10, 2e13  # what a core or a GPU sustains in training where nothing was measured
STEP_S = 0.002  # of every step, whatever its size
PROCESS_BYTES = 450 << 20  # Python, torch and the tracker before there is a model
BYTES_A_TOKEN = {"char": 1.0, "bpe": 3.2, "cl100k": 4.0}
CHARACTERS = 80  # of a vocabulary of characters whose text was not read


@dataclass(frozen=True)
class Estimate:
    """What a run will cost, about.

    Attributes:
        parameters: numbers in the model.
        vocab_size: tokens of the vocabulary that this was counted with.
        flops_per_token: forward and backward.
        memory_bytes: of the training process.
        steps: optimizer steps.
        tokens: trained on, some of them several times.
        epochs: how often the data is read.
        seconds: of training, without validations.
    """

    parameters: int
    vocab_size: int
    flops_per_token: int
    memory_bytes: int
    steps: int
    tokens: int
    epochs: float
    seconds: float


def flops_per_token(config: ModelConfig, vocab_size: int) -> int:
    """As GPT.flops_per_token counts them, from the shapes alone; a test holds the two equal."""
    shapes = parameter_shapes(config, vocab_size)
    matrices = sum(math.prod(s) for n, s in shapes.items() if len(s) == 2 and n not in ("wte", "wpe"))
    if config.tied:
        matrices += vocab_size * config.n_embd
    return 6 * matrices + 12 * config.n_layer * config.n_embd * config.block_size


def eager_seconds(steps: int, tokens: int, flops_per_token: int, flops_per_s: float) -> float:
    """Seconds of training that is not compiled, without validations."""
    return tokens * flops_per_token / flops_per_s + steps * STEP_S


def guessed_vocabulary(config: TrainConfig, text_bytes: int, characters: int = 0) -> int:
    """Tokens of the vocabulary that training will make.

    Args:
        config: says the kind.
        text_bytes: of the data.
        characters: different ones in the data, 0 where it was not read.
    """
    if config.tokenizer.kind == "char":
        return (characters or CHARACTERS) + 1
    return vocabulary(config.tokenizer.vocab_size, text_bytes)


def activation_bytes(config: TrainConfig, vocab_size: int) -> int:
    """What the backward pass keeps of one micro-batch, in 4-byte numbers: some rows a layer, and the logits."""
    m = config.model
    a_layer = 10 * m.n_embd + 3 * mlp_width(m)
    return 4 * (config.data.batch_size or 1) * m.block_size * (m.n_layer * a_layer + 3 * vocab_size)


def estimate(
    config: TrainConfig, text_bytes: int, characters: int = 0, flops_per_s: float = 0.0, gpu: bool = False
) -> Estimate:
    """What a run will cost, about.

    Args:
        config: valid, with autos.
        text_bytes: of the data, 0 where that is not known.
        characters: different ones in the data, 0 where it was not read.
        flops_per_s: what this machine was seen to do, 0 where nothing was.
        gpu: whether a GPU will do it.
    """
    vocab_size = guessed_vocabulary(config, text_bytes, characters)
    data_tokens = int(text_bytes * (1 - config.data.val_fraction) / BYTES_A_TOKEN[config.tokenizer.kind])
    shapes = parameter_shapes(config.model, vocab_size)
    parameters = sum(math.prod(s) for s in shapes.values())
    c = resolved_shape(config, data_tokens, parameters)
    hidden = sum(math.prod(s) for n, s in shapes.items() if len(s) == 2 and n.startswith("layer"))
    moments = 2 * parameters - (hidden if c.optimizer.name == "muon" else 0)
    averaged = parameters if c.optimizer.ema_decay else 0
    flops = flops_per_token(c.model, vocab_size)
    steps = c.trainer.max_steps or 0
    tokens = steps * (c.data.batch_size or 1) * c.trainer.accumulate * c.model.block_size
    batch = flops * (c.data.batch_size or 1) * c.model.block_size
    rate = flops_per_s or (GPU_FLOPS if gpu else CORE_FLOPS * threads(c.device.threads, batch))
    return Estimate(
        parameters,
        vocab_size,
        flops,
        PROCESS_BYTES + 4 * (2 * parameters + moments + averaged) + activation_bytes(c, vocab_size),
        steps,
        tokens,
        tokens / data_tokens if data_tokens else math.nan,
        eager_seconds(steps, tokens, flops, rate),
    )
