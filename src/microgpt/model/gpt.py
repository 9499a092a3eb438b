"""The GPT, whole, read from top to bottom.

What can vary, and by which key of ModelConfig:
- normalisation (`norm`): RMSNorm with or without gain, LayerNorm; also after the embedding (`embed_norm`), before
  the head (`final_norm`), and of queries and keys (`qk_norm`)
- position: a learned table or rotary embedding (Su et al. 2021, arXiv:2104.09864)
- attention: multi-head, grouped-query (`n_kv_head`, Ainslie et al. 2023, arXiv:2305.13245); documents in one row
  do not see each other; a KV cache for decoding
- MLP (`mlp`): ReLU, ReLU squared (So et al. 2021, arXiv:2109.08668), GELU and its tanh form (Hendrycks and Gimpel
  2016, arXiv:1606.08415), SwiGLU (Shazeer 2020, arXiv:2002.05202)
- head: its own matrix or the embedding's (`tied`); biases; dropout; three initialisations (`init`)

The tensors are named as Karpathy's microgpt names them: `wte`, `wpe`, `lm_head`, `layer0.attn_wq`, ...
Matrices are stored [out, in].
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microgpt.config.schema import ModelConfig
from microgpt.model.attention import ChunkedAttention
from microgpt.model.loss import IGNORED, summed_cross_entropy
from microgpt.model.shapes import mlp_width


def init_std(config: ModelConfig) -> float:
    """Standard deviation of the initial weights."""
    return config.init_std if config.init_std is not None else min(0.08, config.n_embd**-0.5)


class Norm(nn.Module):
    """RMSNorm (Zhang and Sennrich 2019, arXiv:1910.07467) or LayerNorm over the last dimension."""

    def __init__(self, width: int, config: ModelConfig, kind: str | None = None) -> None:
        super().__init__()
        self.kind, self.eps, self.width = kind or config.norm, config.norm_eps, width
        self.weight = nn.Parameter(torch.ones(width)) if self.kind != "rmsnorm_nogain" else None
        self.bias = nn.Parameter(torch.zeros(width)) if self.kind == "layernorm" and config.bias else None

    def forward(self, x: Tensor) -> Tensor:
        """x of shape [..., width], normalised."""
        if self.kind == "layernorm":
            return F.layer_norm(x, (self.width,), self.weight, self.bias, self.eps)
        return F.rms_norm(x, (self.width,), self.weight, self.eps)


@dataclass
class Context:
    """What all layers share in one forward pass.

    Attributes:
        cos, sin: rotary factors, shape [rows or 1, 1, tokens, head width], or None with learned positions.
        mask: added to attention scores, shape [rows, 1, tokens, keys], or None for plain causal attention.
        cache: keys and values of earlier tokens, or None.
    """

    cos: Tensor | None
    sin: Tensor | None
    mask: Tensor | None
    cache: Cache | None


class Cache:
    """Keys and values of the tokens seen so far, for decoding rows of one length.

    Args:
        config: of the model.
        rows: sequences decoded together.
        device, dtype: of the model.
    """

    def __init__(self, config: ModelConfig, rows: int, device: torch.device, dtype: torch.dtype) -> None:
        heads = config.n_kv_head or config.n_head
        shape = (config.n_layer, rows, heads, config.block_size, config.n_embd // config.n_head)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add the keys and values [rows, heads, tokens, width] of new tokens; returns those of all tokens."""
        end = self.length + k.shape[2]
        self.keys[layer, :, :, self.length : end] = k
        self.values[layer, :, :, self.length : end] = v
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Layer(nn.Module):
    """Attention and MLP, each normalised before and added to the residual stream."""

    def __init__(self, config: ModelConfig, index: int) -> None:
        super().__init__()
        self.config, self.index = config, index
        width, hidden = config.n_embd, mlp_width(config)
        self.head_width = width // config.n_head
        kv = (config.n_kv_head or config.n_head) * self.head_width
        self.attn_norm = Norm(width, config)
        self.attn_wq = nn.Parameter(torch.empty(width, width))
        self.attn_wk = nn.Parameter(torch.empty(kv, width))
        self.attn_wv = nn.Parameter(torch.empty(kv, width))
        self.attn_wo = nn.Parameter(torch.empty(width, width))
        self.mlp_norm = Norm(width, config)
        self.mlp_gate = nn.Parameter(torch.empty(hidden, width)) if config.mlp == "swiglu" else None
        self.mlp_fc1 = nn.Parameter(torch.empty(hidden, width))
        self.mlp_fc2 = nn.Parameter(torch.empty(width, hidden))
        qk = "rmsnorm_nogain" if config.norm == "rmsnorm_nogain" else "rmsnorm"
        self.q_norm = Norm(self.head_width, config, qk) if config.qk_norm else None
        self.k_norm = Norm(self.head_width, config, qk) if config.qk_norm else None

        def bias(size: int) -> nn.Parameter | None:
            return nn.Parameter(torch.zeros(size)) if config.bias else None

        self.attn_bq, self.attn_bk, self.attn_bv, self.attn_bo = bias(width), bias(kv), bias(kv), bias(width)
        self.mlp_b1, self.mlp_b2 = bias(hidden), bias(width)

    def _attention(self, x: Tensor, context: Context) -> Tensor:
        rows, tokens, width = x.shape

        def heads(weight: Tensor, bias: Tensor | None) -> Tensor:
            return F.linear(x, weight, bias).view(rows, tokens, -1, self.head_width).transpose(1, 2)

        q, k = heads(self.attn_wq, self.attn_bq), heads(self.attn_wk, self.attn_bk)
        v = heads(self.attn_wv, self.attn_bv)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if context.cos is not None and context.sin is not None:
            q, k = rotated(q, context.cos, context.sin), rotated(k, context.cos, context.sin)
        if context.cache is not None:
            k, v = context.cache.extend(self.index, k, v)
        dropout = self.config.dropout if self.training else 0.0
        if torch.compiler.is_compiling() and x.device.type == "cpu" and context.cache is None and not dropout:
            shared = q.shape[1] // k.shape[1]  # queries' heads that look at the same keys
            k, v = (k, v) if shared == 1 else (each.repeat_interleave(shared, 1) for each in (k, v))
            out: Tensor = ChunkedAttention.apply(q, k, v, context.mask)  # pyright: ignore[reportAssignmentType]
        else:
            out = F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=context.mask,
                is_causal=context.mask is None and tokens > 1,
                dropout_p=dropout,
                enable_gqa=self.config.n_kv_head is not None,
            )
        return F.linear(out.transpose(1, 2).reshape(rows, tokens, width), self.attn_wo, self.attn_bo)

    def _mlp(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.mlp_fc1, self.mlp_b1)
        if self.mlp_gate is not None:
            hidden = F.silu(F.linear(x, self.mlp_gate)) * hidden
        elif self.config.mlp in ("gelu", "gelu_tanh"):
            hidden = F.gelu(hidden, approximate="tanh" if self.config.mlp == "gelu_tanh" else "none")
        else:
            hidden = F.relu(hidden)
            if self.config.mlp == "relu2":
                hidden = hidden * hidden
        return F.linear(hidden, self.mlp_fc2, self.mlp_b2)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """x of shape [rows, tokens, n_embd]."""
        drop, train = self.config.dropout, self.training
        a = self._attention(self.attn_norm(x), context)
        x = x + (F.dropout(a, drop, train) if drop else a)
        m = self._mlp(self.mlp_norm(x))
        return x + (F.dropout(m, drop, train) if drop else m)


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate pairs (i, i + width/2) of each head by the angle of the token's position, as Llama does."""
    half = x.shape[-1] // 2
    turned = torch.cat((-x[..., half:], x[..., :half]), dim=-1)
    return x * cos + turned * sin


class GPT(nn.Module):
    """A decoder-only transformer.

    Args:
        config: its shape.
        vocab_size: number of token ids.
    """

    def __init__(self, config: ModelConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        self.wte = nn.Parameter(torch.empty(vocab_size, config.n_embd))
        learned = config.position == "learned"
        self.wpe = nn.Parameter(torch.empty(config.block_size, config.n_embd)) if learned else None
        self.embed_norm = Norm(config.n_embd, config) if config.embed_norm else None
        for i in range(config.n_layer):
            self.add_module(f"layer{i}", Layer(config, i))
        self.final_norm = Norm(config.n_embd, config) if config.final_norm else None
        self.lm_head = None if config.tied else nn.Parameter(torch.empty(vocab_size, config.n_embd))
        if not learned:
            width = config.n_embd // config.n_head
            frequency = config.rope_base ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            angles = torch.outer(torch.arange(config.block_size, dtype=torch.float64), frequency).repeat(1, 2)
            self.register_buffer("rope_cos", angles.cos().float(), persistent=False)
            self.register_buffer("rope_sin", angles.sin().float(), persistent=False)

    @property
    def layers(self) -> list[Layer]:
        """The transformer blocks, first to last."""
        found = (self.get_submodule(f"layer{i}") for i in range(self.config.n_layer))
        return [layer for layer in found if isinstance(layer, Layer)]

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill all matrices from the seed. Norm gains stay 1 and biases 0."""
        generator = torch.Generator().manual_seed(seed)
        std = init_std(self.config)
        for name, parameter in self.named_parameters():
            if parameter.dim() < 2:
                continue
            leaf = name.rpartition(".")[2]
            scale = std
            if leaf in ("attn_wo", "mlp_fc2"):
                if self.config.init == "zero_out":
                    scale = 0.0
                elif self.config.init == "scaled_out":
                    scale = std / math.sqrt(2 * self.config.n_layer)
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn * scale)

    def _context(
        self, tokens: Tensor, positions: Tensor | None, segments: Tensor | None, cache: Cache | None
    ) -> tuple[Context, Tensor]:
        """What the layers share, and the position of each token, shape [rows or 1, tokens]."""
        count = tokens.shape[1]
        first = cache.length if cache is not None else 0
        if positions is None:
            positions = torch.arange(first, first + count, device=tokens.device)[None]
        cos = sin = mask = None
        dtype = self.wte.dtype
        if self.wpe is None:
            cos = self.get_buffer("rope_cos")[positions][:, None].to(dtype)
            sin = self.get_buffer("rope_sin")[positions][:, None].to(dtype)
        if segments is not None:
            seen = torch.ones(count, count, dtype=torch.bool, device=tokens.device).tril()
            seen = seen & (segments[:, :, None] == segments[:, None, :])
            # added rather than boolean: SDPA would turn it into this again in every layer
            mask = torch.zeros(seen.shape, dtype=dtype, device=tokens.device)
            mask = mask.masked_fill(~seen, float("-inf"))[:, None]
        elif cache is not None and first and count > 1:
            keys = torch.arange(first + count, device=tokens.device)
            seen = keys[None, :] <= positions[0][:, None]
            mask = torch.zeros(seen.shape, dtype=dtype, device=tokens.device)
            mask = mask.masked_fill(~seen, float("-inf"))[None, None]
        return Context(cos, sin, mask, cache), positions

    def hidden(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """The residual stream before the head, shape [rows, tokens, n_embd]; arguments as of `forward`."""
        context, positions = self._context(tokens, positions, segments, cache)
        x = F.embedding(tokens, self.wte)
        if self.wpe is not None:
            x = x + F.embedding(positions, self.wpe)
        if self.embed_norm is not None:
            x = self.embed_norm(x)
        if self.config.dropout:
            x = F.dropout(x, self.config.dropout, self.training)
        for layer in self.layers:
            x = layer(x, context)
        if cache is not None:
            cache.length += tokens.shape[1]
        return x if self.final_norm is None else self.final_norm(x)

    @property
    def head(self) -> Tensor:
        """The output matrix, shape [vocab_size, n_embd]."""
        return self.wte if self.lm_head is None else self.lm_head

    def forward(
        self,
        tokens: Tensor,
        positions: Tensor | None = None,
        segments: Tensor | None = None,
        cache: Cache | None = None,
    ) -> Tensor:
        """Logits of the next token.

        Args:
            tokens: ids, shape [rows, tokens], at most block_size of them (with those in the cache).
            positions: place of each token in its document, same shape; None counts from the cache's end.
            segments: tokens see only those of the same number in their row, same shape; None is one segment.
            cache: keys and values of earlier tokens, extended in place.

        Returns:
            Logits, shape [rows, tokens, vocab_size].
        """
        return F.linear(self.hidden(tokens, positions, segments, cache), self.head)

    def loss(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Summed cross-entropy in nats over the targets that are not -1; arguments as of `forward`."""
        hidden = self.hidden(tokens, positions, segments).flatten(0, 1)
        return summed_cross_entropy(hidden, self.head, targets.reshape(-1))

    def losses(
        self, tokens: Tensor, targets: Tensor, positions: Tensor | None = None, segments: Tensor | None = None
    ) -> Tensor:
        """Cross-entropy of each target in nats, shape [rows, tokens], 0 where the target is -1."""
        logits = self.forward(tokens, positions, segments).float()
        each = F.cross_entropy(
            logits.view(-1, self.vocab_size), targets.reshape(-1), ignore_index=IGNORED, reduction="none"
        )
        return each.view(targets.shape)

    def parameter_count(self) -> int:
        """All trained numbers."""
        return sum(p.numel() for p in self.parameters())

    def flops_per_token(self) -> int:
        """Floating-point operations of one training token, forward and backward.

        6 for each weight of a matrix multiplication and 12 n_layer n_embd tokens for attention scores and values,
        as in Chowdhery et al. 2022 (arXiv:2204.02311, appendix B). Embedding look-ups are free.
        """
        matrices = sum(p.numel() for n, p in self.named_parameters() if p.dim() == 2 and n not in ("wte", "wpe"))
        if self.config.tied:
            matrices += self.wte.numel()
        attention = 12 * self.config.n_layer * self.config.n_embd * self.config.block_size
        return 6 * matrices + attention
