"""Causal attention for training on a CPU that the compiler fuses; PyTorch's own is a fixed kernel there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: queries whose scores stand in memory together. 128 and 512 are as fast; each chunk is compiled by itself, so that
#: smaller ones take longer to compile, and larger ones more memory
CHUNK = 256


class ChunkedAttention(torch.autograd.Function):
    """Attention of a chunk of queries at a time, each over the keys up to its own end.

    The backward pass makes the probabilities again from the logarithm of their sum (as FlashAttention does, Dao et
    al. 2022, arXiv:2205.14135), so that memory grows with the tokens and not with their square. Products are made in
    the number format of the values, what lies between in float32. It pays only where it is compiled: each of its
    steps is then one pass over a chunk's scores.
    """

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """What each token takes from those before it and itself, in the format of q.

        Args:
            ctx: keeps what the backward pass needs.
            q, k, v: shape [rows, heads, tokens, head width]; v may be of a smaller format.
            mask: added to the scores, shape [rows or 1, 1, tokens, tokens]; None hides what comes later.
        """
        tokens, kind = q.shape[2], v.dtype
        scaled, keys = (q * q.shape[3] ** -0.5).to(kind), k.to(kind)
        if mask is None:
            mask = torch.full((tokens, tokens), float("-inf"), device=q.device).triu(1)[None, None]
        found: list[Tensor] = []
        sums: list[Tensor] = []
        for start in range(0, tokens, CHUNK):
            end = min(tokens, start + CHUNK)
            scores = scaled[:, :, start:end] @ keys[:, :, :end].mT + mask[..., start:end, :end]
            highest = scores.amax(3, keepdim=True)
            powers = (scores - highest).exp()
            total = powers.sum(3, keepdim=True)
            found.append((powers.to(kind) @ v[:, :, :end]).to(q.dtype) / total)
            sums.append(highest + total.log())
        out, logsum = torch.cat(found, 2), torch.cat(sums, 2)
        ctx.save_for_backward(scaled, keys, v, mask, out, logsum)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The gradients of q, k and v."""
        scaled, keys, v, mask, out, logsum = ctx.saved_tensors
        kind, scale = v.dtype, v.shape[3] ** -0.5
        given = grad.to(kind)
        weighted = (grad * out).sum(3, keepdim=True)  # what the probabilities' gradients lose to the softmax
        to_q: list[Tensor] = []
        to_k, to_v = torch.zeros_like(out), torch.zeros_like(out)
        for start in range(0, out.shape[2], CHUNK):
            end = min(out.shape[2], start + CHUNK)
            scores = scaled[:, :, start:end] @ keys[:, :, :end].mT
            shares = (scores + (mask[..., start:end, :end] - logsum[:, :, start:end])).exp()
            to_shares = given[:, :, start:end] @ v[:, :, :end].mT
            to_scores = (shares * (to_shares - weighted[:, :, start:end])).to(kind)
            to_q.append((to_scores @ keys[:, :, :end]).to(grad.dtype) * scale)
            to_k[:, :, :end] += to_scores.mT @ scaled[:, :, start:end]
            to_v[:, :, :end] += shares.to(kind).mT @ given[:, :, start:end]
        return torch.cat(to_q, 2), to_k, to_v.to(kind), None
