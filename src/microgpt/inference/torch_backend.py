"""The PyTorch backend: decoding on any device, many rows at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from microgpt.config.schema import ModelConfig
from microgpt.inference.engine import SLOTS, Engine
from microgpt.inference.weights import Floats, Weights, fold
from microgpt.model.gpt import GPT


class TorchBackend:
    """Folded weights on a device and the keys and values of `rows` sequences, layer by layer.

    Args:
        weights: of the model.
        rows: sequences at a time.
        device: where to compute.
        dtype: number format of weights, keys and values; logits are float32.
    """

    def __init__(self, weights: Weights, rows: int, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self._config, self.vocab_size = weights.config, len(weights.wte)
        self._device, self._dtype = torch.device(device), dtype

        def put(array: Floats | None) -> Tensor | None:
            return None if array is None else torch.from_numpy(array).to(self._device, dtype)

        def each(array: Floats | None) -> list[Tensor | None]:
            whole = put(array)
            return [None] * self._config.n_layer if whole is None else list(whole)

        def matrices(array: Floats) -> list[Tensor]:
            return list(torch.from_numpy(array).to(self._device, dtype))

        self._wte, self._wpe = torch.from_numpy(weights.wte).to(self._device, dtype), put(weights.wpe)
        self._embed_gain, self._embed_bias = put(weights.embed_gain), put(weights.embed_bias)
        self._qkv, self._qkv_bias = matrices(weights.qkv), each(weights.qkv_bias)
        self._out, self._out_bias = matrices(weights.out), each(weights.out_bias)
        self._up, self._up_bias = matrices(weights.up), each(weights.up_bias)
        self._down, self._down_bias = matrices(weights.down), each(weights.down_bias)
        self._q_gain, self._k_gain = each(weights.q_gain), each(weights.k_gain)
        self._head, self._head_bias = torch.from_numpy(weights.head).to(self._device, dtype), put(weights.head_bias)
        self._cos, self._sin = put(weights.cos), put(weights.sin)
        self._kv, self._width = weights.n_kv_head, weights.head_width
        shape = (rows, self._kv, self._config.block_size, self._width)
        layers = range(self._config.n_layer)
        self._keys = [torch.zeros(shape, device=self._device, dtype=dtype) for _ in layers]
        self._values = [torch.zeros(shape, device=self._device, dtype=dtype) for _ in layers]
        self._lengths = np.zeros(rows, np.int64)

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self._config

    @torch.inference_mode()
    def prefill(self, row: int, ids: Sequence[int]) -> Floats:
        count = len(ids)
        positions = torch.arange(count, device=self._device)
        x = self._embedded(torch.tensor(ids, device=self._device), positions)
        cos, sin = self._angles(positions)
        final = self._config.n_layer - 1
        for layer in range(self._config.n_layer):
            q, k, v = self._placed(x, layer, cos, sin)
            self._keys[layer][row, :, :count] = k.transpose(0, 1)
            self._values[layer][row, :, :count] = v.transpose(0, 1)
            last = layer == final  # what only later layers would read is left out
            if last:
                q, x = q[-1:], x[-1:]
            seen = F.scaled_dot_product_attention(
                q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None],
                is_causal=count > 1 and not last, scale=1.0, enable_gqa=self._kv != self._config.n_head,
            )  # fmt: skip
            x = self._rest(x, seen[0].transpose(0, 1).reshape(len(x), -1), layer)
        self._lengths[row] = count
        return self._logits(x)[0]

    @torch.inference_mode()
    def decode(self, tokens: Sequence[int]) -> Floats:
        rows = len(tokens)
        lengths = self._lengths[:rows]
        longest = int(lengths.max()) + 1
        positions = torch.from_numpy(lengths.copy()).to(self._device)
        x = self._embedded(torch.tensor(tokens, device=self._device), positions)
        cos, sin = self._angles(positions)
        mask = None
        if rows > 1 and int(lengths.min()) + 1 < longest:
            unseen = torch.arange(longest, device=self._device)[None] > positions[:, None]
            mask = torch.zeros(unseen.shape, device=self._device, dtype=self._dtype)
            mask = mask.masked_fill(unseen, -torch.inf)[:, None, None]
        every = torch.arange(rows, device=self._device)
        for layer in range(self._config.n_layer):
            q, k, v = self._placed(x, layer, cos, sin)
            keys, values = self._keys[layer], self._values[layer]
            keys[every, :, positions], values[every, :, positions] = k, v
            seen = F.scaled_dot_product_attention(
                q[:, :, None], keys[:rows, :, :longest], values[:rows, :, :longest], attn_mask=mask, scale=1.0,
                enable_gqa=self._kv != self._config.n_head,
            )  # fmt: skip
            x = self._rest(x, seen.reshape(rows, -1), layer)
        lengths += 1
        return self._logits(x)

    def move(self, source: int, target: int) -> None:
        count = self._lengths[source]
        for held in (*self._keys, *self._values):
            held[target, :, :count] = held[source, :, :count]
        self._lengths[target] = count

    def _embedded(self, ids: Tensor, positions: Tensor) -> Tensor:
        x = F.embedding(ids, self._wte)
        if self._wpe is not None:
            x = x + F.embedding(positions, self._wpe)
        if self._config.embed_norm:
            x = self._normed(x)
            if self._embed_gain is not None:
                x = x * self._embed_gain
            if self._embed_bias is not None:
                x = x + self._embed_bias
        return x

    def _angles(self, positions: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Rotary factors of positions, [n, 1, head width / 2]."""
        if self._cos is None or self._sin is None:
            return None, None
        return self._cos[positions][:, None], self._sin[positions][:, None]

    def _normed(self, x: Tensor) -> Tensor:
        width = x.shape[-1:]
        if self._config.norm == "layernorm":
            return F.layer_norm(x, width, eps=self._config.norm_eps)
        # two operators where F.rms_norm is composed of many on the CPU
        return x * torch.rsqrt(torch.linalg.vecdot(x, x)[..., None] / width[0] + self._config.norm_eps)

    def _times(self, x: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
        return torch.mm(x, matrix) if bias is None else torch.addmm(bias, x, matrix)

    def _placed(self, x: Tensor, layer: int, cos: Tensor | None, sin: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values [n, heads, head width] of tokens [n, n_embd]."""
        qkv = self._times(self._normed(x), self._qkv[layer], self._qkv_bias[layer])
        heads = qkv.view(len(x), -1, self._width)
        q, k, v = heads.split((self._config.n_head, self._kv, self._kv), dim=1)
        q_gain, k_gain = self._q_gain[layer], self._k_gain[layer]
        if q_gain is not None and k_gain is not None:
            q, k = self._normed_heads(q) * q_gain, self._normed_heads(k) * k_gain
        if cos is not None and sin is not None:
            q, k = _rotated(q, cos, sin), _rotated(k, cos, sin)
        return q, k, v

    def _normed_heads(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(torch.linalg.vecdot(x, x)[..., None] / x.shape[-1] + self._config.norm_eps)

    def _rest(self, x: Tensor, seen: Tensor, layer: int) -> Tensor:
        """What follows attention in a layer: its output matrix and the MLP."""
        x = x + self._times(seen, self._out[layer], self._out_bias[layer])
        inner = self._times(self._normed(x), self._up[layer], self._up_bias[layer])
        return x + self._times(self._activated(inner), self._down[layer], self._down_bias[layer])

    def _activated(self, x: Tensor) -> Tensor:
        kind = self._config.mlp
        if kind == "swiglu":
            gate, value = x.chunk(2, dim=-1)
            return F.silu(gate) * value
        if kind in ("gelu", "gelu_tanh"):
            return F.gelu(x, approximate="tanh" if kind == "gelu_tanh" else "none")
        x = F.relu(x)
        return x * x if kind == "relu2" else x

    def _logits(self, x: Tensor) -> Floats:
        if self._config.final_norm:
            x = self._normed(x)
        return self._times(x, self._head, self._head_bias).float().cpu().numpy()


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def engine_of(model: GPT, slots: int) -> Engine:
    """An engine for a model as it stands, on its device; later changes of its weights are not seen."""
    tensors = {name: p.detach().float().cpu().numpy() for name, p in model.named_parameters()}
    slots = min(slots, SLOTS)
    return Engine(TorchBackend(fold(model.config, tensors), slots, str(model.wte.device)), slots)
