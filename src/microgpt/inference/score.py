"""Loss, perplexity and bits per byte of a model on a fixed set of batches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from microgpt.data.batches import Batches
from microgpt.model.gpt import GPT


@dataclass(frozen=True)
class Score:
    """How well a model predicts.

    Attributes:
        loss: mean nats a target token.
        ppl: exp(loss): among how many equally likely tokens the model hesitates.
        bpb: bits per byte of text, which does not depend on the tokenizer; None where bytes are unknown.
        tokens: targets scored.
        position_loss: mean loss at each position of the context, NaN where there was no target.
    """

    loss: float
    ppl: float
    bpb: float | None
    tokens: int
    position_loss: npt.NDArray[np.float64]


@torch.inference_mode()
def score(model: GPT, parts: list[Batches], token_bytes: npt.NDArray[np.int32] | None, progress: Any = None) -> Score:
    """Score every target of a set once.

    Bits per byte divides the summed loss by the bytes of the text that the targets spell, so that models with
    different vocabularies compare: a larger vocabulary has fewer, harder tokens. Control tokens spell nothing, but
    their loss counts, as the end of a document is part of what must be predicted.

    Args:
        model: in evaluation mode.
        parts: the batches of each data set, with a fixed order.
        token_bytes: bytes of each token id, or None where unknown.
        progress: called with (done, all) after each batch.
    """
    device = model.wte.device
    block = parts[0].rows.block_size
    every = [(part, number) for part in parts for number in range(part.per_epoch)]
    sums, counts = np.zeros(block), np.zeros(block, np.int64)
    size = 0
    for done, (part, number) in enumerate(every, 1):
        batch = part.fixed(number)
        segments = None if batch.segments is None else torch.from_numpy(batch.segments).to(device)
        arrays = (batch.inputs, batch.targets, batch.positions)
        inputs, targets, positions = (torch.from_numpy(a).to(device) for a in arrays)
        losses = model.losses(inputs, targets, positions, segments).double().cpu().numpy()
        real = batch.targets >= 0
        sums += np.bincount(batch.positions[real], weights=losses[real], minlength=block)[:block]
        counts += np.bincount(batch.positions[real], minlength=block)[:block]
        if token_bytes is not None:
            size += int(token_bytes[batch.targets[real]].sum())
        if progress is not None:
            progress(done, len(every))
    nats, tokens = float(sums.sum()), int(counts.sum())
    loss = nats / max(1, tokens)
    with np.errstate(invalid="ignore", divide="ignore"):
        by_position = np.where(counts > 0, sums / counts, np.nan)
    bpb = nats / size / math.log(2) if size else None
    return Score(loss, math.exp(min(loss, 700.0)), bpb, tokens, by_position)
