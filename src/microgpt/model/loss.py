"""Cross-entropy; of a large vocabulary a chunk of tokens at a time."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

IGNORED = -1
#: words from which chunks pay
LARGE = 4096
#: tokens whose logits stand in memory together: at 4,096 words they are 8 MB, which a cache holds
CHUNK = 512
#: chunks of code compiled for a CPU at the most: each is compiled by itself, for three seconds and more
MOST_COMPILED = 8


def at_least_float(x: Tensor) -> Tensor:
    """Halves as float32; float32 and float64 stay."""
    return x if x.dtype == torch.float64 else x.float()


def summed_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Summed cross-entropy in nats over the targets that are not -1; shapes as in `ChunkedCrossEntropy.forward`."""
    if len(head) >= LARGE:
        return ChunkedCrossEntropy.apply(hidden, head, targets)  # pyright: ignore[reportReturnType]
    logits = at_least_float(F.linear(hidden, head))
    return F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")


class ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of a head's logits that never stand in memory together.

    The gradients are made in the forward pass, while a chunk's probabilities are at hand: a third of the memory and
    one pass less over logits (as in Liger, Hsu et al. 2024, arXiv:2410.10989).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        """The loss in nats.

        Args:
            ctx: keeps the gradients.
            hidden: what the head is applied to, shape [tokens, width].
            head: the output matrix, shape [vocab_size, width].
            targets: token ids, shape [tokens]; those of -1 do not count.
        """
        total = torch.zeros((), device=hidden.device, dtype=at_least_float(hidden[:0]).dtype)
        to_hidden = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        to_head = torch.zeros_like(head) if ctx.needs_input_grad[1] else None
        few = torch.compiler.is_compiling() and hidden.device.type == "cpu"
        size = max(CHUNK, -(-len(hidden) // MOST_COMPILED)) if few else CHUNK
        for x, wanted, place in zip(
            hidden.split(size), targets.split(size), range(0, len(hidden), size), strict=True
        ):
            logits = at_least_float(x @ head.T)
            logits = logits - logits.amax(1, keepdim=True)
            counted = (wanted >= 0).to(logits.dtype)[:, None]
            at = wanted.clamp(min=0)
            picked = logits.gather(1, at[:, None])
            powers = logits.exp_()
            sums = powers.sum(1, keepdim=True)
            total = total + ((sums.log() - picked) * counted).sum()
            if to_hidden is None and to_head is None:
                continue
            # the gradient of logits is probabilities less 1 at the target; the 1 goes straight into the products
            probabilities = powers.mul_(counted / sums).to(x.dtype)
            if to_hidden is not None:
                to_hidden[place : place + len(x)] = probabilities @ head - head[at] * counted
            if to_head is not None:
                to_head += probabilities.T @ x
                to_head.index_add_(0, at, (x * -counted).to(to_head.dtype))
        ctx.save_for_backward(to_hidden, to_head)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of the forward pass, times that of the loss."""
        to_hidden, to_head = ctx.saved_tensors
        return None if to_hidden is None else to_hidden * grad, None if to_head is None else to_head * grad, None
