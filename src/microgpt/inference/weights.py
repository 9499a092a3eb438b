"""A model's weights as decoding wants them: gains folded into the next matrix, matrices stored [in, out].

A norm's gain g and bias b vanish into the linear layer behind it: W(g * n + b) = (W * g) n + W b. What is left of a
norm has no weights. Queries, keys and values are one matrix, the two input matrices of SwiGLU another; the scale of
attention goes into the queries. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.config.schema import ModelConfig

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Weights:
    """Folded weights; matrices [in, out], all layers stacked in front; None where the model has no such part.

    Attributes:
        config: the model's shape.
        wte: embedding, [vocab_size, n_embd].
        wpe: learned positions, [block_size, n_embd].
        embed_gain, embed_bias: of the norm after the embedding, [n_embd].
        qkv, qkv_bias: queries (scaled), keys and values, [n_layer, n_embd, (n_head + 2 n_kv_head) * head width].
        q_gain, k_gain: of the norms of queries (scaled) and keys, [n_layer, head width].
        out, out_bias: after attention, [n_layer, n_embd, n_embd].
        up, up_bias: into the MLP, gate first, [n_layer, n_embd, hidden or 2 hidden].
        down, down_bias: out of the MLP, [n_layer, hidden, n_embd].
        head, head_bias: [n_embd, vocab_size].
        cos, sin: rotary factors, [block_size, head width / 2].
    """

    config: ModelConfig
    wte: Floats
    wpe: Floats | None
    embed_gain: Floats | None
    embed_bias: Floats | None
    qkv: Floats
    qkv_bias: Floats | None
    q_gain: Floats | None
    k_gain: Floats | None
    out: Floats
    out_bias: Floats | None
    up: Floats
    up_bias: Floats | None
    down: Floats
    down_bias: Floats | None
    head: Floats
    head_bias: Floats | None
    cos: Floats | None
    sin: Floats | None

    @property
    def n_kv_head(self) -> int:
        """Heads of keys and values."""
        return self.config.n_kv_head or self.config.n_head

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.config.n_embd // self.config.n_head

    @property
    def layer_bytes(self) -> int:
        """Bytes of the matrices that every token is multiplied with."""
        return sum(a.nbytes for a in (self.qkv, self.out, self.up, self.down, self.head))


def fold(config: ModelConfig, tensors: Mapping[str, npt.NDArray[Any]]) -> Weights:
    """Folded weights of a model.

    Args:
        config: its shape.
        tensors: its weights by name, matrices [out, in], as `model/gpt.py` names them.
    """
    layers = range(config.n_layer)
    width = config.n_embd // config.n_head
    scale = np.float64(width) ** -0.5

    def wide(name: str) -> npt.NDArray[np.float64] | None:
        return tensors[name].astype(np.float64) if name in tensors else None

    def linear(parts: list[tuple[str, str]], norm: str, scaled: float = 1.0) -> tuple[Floats, Floats | None]:
        """Matrices side by side, with the norm before them folded in; the first is scaled."""
        gain, shift = wide(norm + ".weight"), wide(norm + ".bias")
        matrices: list[Floats] = []
        biases: list[npt.NDArray[np.float64]] = []
        some = False
        for i, (name, bias) in enumerate(parts):
            matrix, own = np.asarray(tensors[name], np.float32), wide(bias)
            factor = scaled if i == 0 else 1.0
            offset = np.zeros(len(matrix))
            if shift is not None:
                offset = matrix.astype(np.float64) @ shift
            if own is not None:
                offset = offset + own
            some = some or shift is not None or own is not None
            if gain is not None:
                matrix = matrix * gain.astype(np.float32)
            matrices.append((matrix * np.float32(factor)).T if factor != 1 else matrix.T)
            biases.append(offset * factor)
        joined = np.ascontiguousarray(np.concatenate(matrices, axis=1))
        return joined, np.concatenate(biases).astype(np.float32) if some else None

    def stacked(found: list[tuple[Floats, Floats | None]]) -> tuple[Floats, Floats | None]:
        biases = [b for _, b in found if b is not None]
        return np.stack([m for m, _ in found]), np.stack(biases) if biases else None

    def gains(name: str, factor: float) -> Floats | None:
        if not config.qk_norm:
            return None
        ones = np.ones(width)
        found = [wide(f"layer{i}.{name}.weight") for i in layers]
        return np.stack([(ones if g is None else g) * factor for g in found]).astype(np.float32)

    # normalised queries take the scale of attention in their gain, others in their matrix
    in_matrix, in_gain = (1.0, scale) if config.qk_norm else (scale, 1.0)
    qkv, qkv_bias = stacked(
        [
            linear([(f"layer{i}.attn_w{c}", f"layer{i}.attn_b{c}") for c in "qkv"], f"layer{i}.attn_norm", in_matrix)
            for i in layers
        ]
    )
    out, out_bias = stacked([linear([(f"layer{i}.attn_wo", f"layer{i}.attn_bo")], "") for i in layers])
    gate = [("mlp_gate", "")] if config.mlp == "swiglu" else []
    inward = [*gate, ("mlp_fc1", "mlp_b1")]
    up, up_bias = stacked(
        [linear([(f"layer{i}.{w}", f"layer{i}.{b}") for w, b in inward], f"layer{i}.mlp_norm") for i in layers]
    )
    down, down_bias = stacked([linear([(f"layer{i}.mlp_fc2", f"layer{i}.mlp_b2")], "") for i in layers])
    head, head_bias = linear([("wte" if config.tied else "lm_head", "")], "final_norm" if config.final_norm else "")
    cos = sin = None
    if config.position == "rope":
        frequency = config.rope_base ** (-np.arange(0, width, 2, dtype=np.float64) / width)
        angles = np.outer(np.arange(config.block_size, dtype=np.float64), frequency)
        cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)

    def plain(name: str) -> Floats | None:
        return np.ascontiguousarray(tensors[name], dtype=np.float32) if name in tensors else None

    return Weights(
        config, np.ascontiguousarray(tensors["wte"], dtype=np.float32), plain("wpe"),
        plain("embed_norm.weight"), plain("embed_norm.bias"), qkv, qkv_bias,
        gains("q_norm", in_gain), gains("k_norm", 1.0), out, out_bias, up, up_bias, down, down_bias,
        head, head_bias, cos, sin,
    )  # fmt: skip
