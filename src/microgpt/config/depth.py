"""`model.depth=N`: one dial for the size of a model, from which shape, learning rate, batch and steps follow.

The shape is set before the config is checked (`with_shape`), the rest when autos are filled (`config/auto.py`). A key
that was typed wins over the dial. The rules:

- n_layer = N, n_embd = 64 N, heads of width 64: depth and width grow together (as in nanochat), so that a model has
  about 49,000 N^3 weights beside its embeddings.
- AdamW's learning rate falls as 1/width (Yang et al. 2022, arXiv:2203.03466): 0.01 / N. Muon's stays: its updates
  have the same spectral size at every width (Yang, Simon and Bernstein 2023, arXiv:2310.17813).
- Tokens: 20 for each parameter (Hoffmann et al. 2022, arXiv:2203.15556), but no more than 4 epochs of the data, up to
  which repeating is almost as good as new text (Muennighoff et al. 2023, arXiv:2305.16264).
- Tokens a step: 0.292 C^0.3271 for C operations of training (DeepSeek-AI 2024, arXiv:2401.02954, eq. 3), down to a
  power of two of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

WIDTH_A_LAYER = 64
HEAD_WIDTH = 64
TOKENS_A_PARAMETER = 20
EPOCHS = 4
BATCH_FACTOR, BATCH_POWER = 0.2920, 0.3271
MICRO_TOKENS = 16384  # of a micro-batch, where a step is larger it is accumulated
MIN_STEPS = 100
SHAPE = ("n_layer", "n_embd", "n_head")


def shape(depth: int) -> dict[str, int]:
    """The keys of the model that a depth sets."""
    width = WIDTH_A_LAYER * depth
    return {"n_layer": depth, "n_embd": width, "n_head": width // HEAD_WIDTH}


def with_shape(values: Mapping[str, Any], typed: Iterable[str]) -> Mapping[str, Any]:
    """A composed config in which `model.depth` has set the shape, but for keys that were typed.

    Args:
        values: as composed, not yet checked; a depth that is no whole number is left to the check.
        typed: keys on the command line.
    """
    model: Any = values.get("model")
    depth: Any = model.get("depth") if isinstance(model, Mapping) else None
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= 1024:
        return values
    given = set(typed)
    dialled = {key: value for key, value in shape(depth).items() if f"model.{key}" not in given}
    return {**values, "model": {**model, **dialled}}


@dataclass(frozen=True)
class Plan:
    """What a depth comes to in training.

    Attributes:
        batch_size, accumulate: rows of a micro-batch, and micro-batches of a step.
        steps: optimizer steps.
        bound: what has set the number of tokens, in words.
    """

    batch_size: int
    accumulate: int
    steps: int
    bound: str


def plan(parameters: int, block_size: int, train_tokens: int, rows: int | None = None) -> Plan:
    """Batch and steps of a model.

    Args:
        parameters: all trained numbers.
        block_size: tokens of a row.
        train_tokens: of the training set; 0 where that is not known.
        rows: of a step, where the user has chosen them.
    """
    tokens, bound = TOKENS_A_PARAMETER * parameters, f"{TOKENS_A_PARAMETER} tokens a parameter"
    if train_tokens and EPOCHS * train_tokens < tokens:
        tokens, bound = (
            EPOCHS * train_tokens,
            f"{EPOCHS} epochs of the data, {EPOCHS * train_tokens / parameters:.2g} tokens a parameter",
        )
    wanted = BATCH_FACTOR * (6.0 * parameters * tokens) ** BATCH_POWER
    wanted = min(wanted, tokens / MIN_STEPS)
    if rows is None:
        rows = 1 << max(0, int(wanted / block_size).bit_length() - 1)
    micro = min(rows, max(1, 1 << (MICRO_TOKENS // block_size).bit_length() - 1)) if rows & (rows - 1) == 0 else rows
    steps = max(MIN_STEPS, tokens // (rows * block_size))
    return Plan(micro, rows // micro, steps, bound)
