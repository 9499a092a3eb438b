"""The steps of decoding compiled with numba: those of `steps_numpy.py`, and a whole token in one call.

Everything releases the interpreter's lock. Arithmetic may be regrouped (so that it vectorises) but NaN and infinity
keep their meaning.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from microgpt import files
from microgpt.config.schema import ModelConfig
from microgpt.inference.steps_numpy import Ints
from microgpt.inference.weights import Floats, Weights, fold

os.environ.setdefault("NUMBA_CACHE_DIR", str(files.cache_folder() / "numba"))
import numba

_compiled: Any = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})
KINDS = {"relu": 0, "relu2": 1, "gelu": 2, "swiglu": 3}
_NONE = np.empty(0, np.float32)
_NONE2 = np.empty((0, 0), np.float32)


@_compiled
def _norm(x: Any, kind: int, eps: float, out: Any) -> None:
    size = x.shape[0]
    mean = np.float32(0)
    if kind == 2:
        for i in range(size):
            mean += x[i]
        mean /= np.float32(size)
    total = np.float32(0)
    for i in range(size):
        total += (x[i] - mean) * (x[i] - mean)
    factor = np.float32(1) / np.float32(math.sqrt(total / np.float32(size) + np.float32(eps)))
    for i in range(size):
        out[i] = (x[i] - mean) * factor


@_compiled
def _norms(x: Any, kind: int, eps: float) -> Any:
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        _norm(x[i], kind, eps, out[i])
    return out


@_compiled
def _place(heads: Any, width: int, gain: Any, eps: float, cos: Any, sin: Any) -> None:
    """Normalise (where there is a gain) and rotate (where there are angles) the heads of one token, in place."""
    half = width // 2
    for start in range(0, heads.shape[0], width):
        if gain.shape[0]:
            total = np.float32(0)
            for i in range(start, start + width):
                total += heads[i] * heads[i]
            factor = np.float32(1) / np.float32(math.sqrt(total / np.float32(width) + np.float32(eps)))
            for i in range(width):
                heads[start + i] *= factor * gain[i]
        if cos.shape[0]:
            for i in range(half):
                a, b = heads[start + i], heads[start + half + i]
                heads[start + i] = a * cos[i] - b * sin[i]
                heads[start + half + i] = b * cos[i] + a * sin[i]


@_compiled
def _look(q: Any, keys: Any, values: Any, length: int, scores: Any, out: Any) -> None:
    """One query [width] over keys and values [at least length, width]; the result goes to out [width]."""
    width = q.shape[0]
    top = np.float32(-np.inf)
    for t in range(length):
        key = keys[t]
        s = np.float32(0)
        for i in range(width):
            s += q[i] * key[i]
        scores[t] = s
        top = max(top, s)
    total = np.float32(0)
    for t in range(length):
        e = np.float32(math.exp(scores[t] - top))
        scores[t] = e
        total += e
    for i in range(width):
        out[i] = np.float32(0)
    for t in range(length):
        value, s = values[t], scores[t]
        for i in range(width):
            out[i] += s * value[i]
    for i in range(width):
        out[i] /= total


@_compiled
def _attend(qkv: Any, heads: int, kv: int, gains: Any, eps: float, cos: Any, sin: Any,
            keys: Any, values: Any, position: int, scores: Any, out: Any) -> None:  # fmt: skip
    """Attention of one token: place, store, look; qkv [..] is overwritten, keys and values are the row's."""
    width = keys.shape[2]
    queries, q_gain, k_gain = qkv[: heads * width], gains[0], gains[1]
    _place(queries, width, q_gain, eps, cos, sin)
    _place(qkv[heads * width : (heads + kv) * width], width, k_gain, eps, cos, sin)
    group = heads // kv
    for h in range(kv):
        for i in range(width):
            keys[h, position, i] = qkv[(heads + h) * width + i]
            values[h, position, i] = qkv[(heads + kv + h) * width + i]
    for h in range(heads):
        at = h * width
        _look(queries[at : at + width], keys[h // group], values[h // group], position + 1, scores,
              out[at : at + width])  # fmt: skip


@_compiled
def _attend_rows(qkv: Any, heads: int, kv: int, gains: Any, eps: float, cos: Any, sin: Any,
                 keys: Any, values: Any, lengths: Any) -> Any:  # fmt: skip
    out = np.empty((qkv.shape[0], heads * keys.shape[3]), np.float32)
    scores = np.empty(keys.shape[2], np.float32)
    for row in range(qkv.shape[0]):
        p = lengths[row]
        c, s = (cos[p], sin[p]) if cos.shape[0] else (cos[:0].reshape(-1), sin[:0].reshape(-1))
        _attend(qkv[row], heads, kv, gains, eps, c, s, keys[row], values[row], p, scores, out[row])
    return out


@_compiled
def _place_rows(qkv: Any, heads: int, kv: int, width: int, gains: Any, eps: float, cos: Any, sin: Any) -> None:
    for p in range(qkv.shape[0]):
        c, s = (cos[p], sin[p]) if cos.shape[0] else (cos[:0].reshape(-1), sin[:0].reshape(-1))
        _place(qkv[p, : heads * width], width, gains[0], eps, c, s)
        _place(qkv[p, heads * width : (heads + kv) * width], width, gains[1], eps, c, s)


@_compiled
def _causal_softmax(scores: Any) -> None:
    """Of scores [heads, tokens, tokens], in place; a token sees itself and those before it."""
    for h in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            row = scores[h, t]
            top = np.float32(-np.inf)
            for i in range(t + 1):
                top = max(top, row[i])
            total = np.float32(0)
            for i in range(t + 1):
                e = np.float32(math.exp(row[i] - top))
                row[i] = e
                total += e
            for i in range(t + 1):
                row[i] /= total
            for i in range(t + 1, row.shape[0]):
                row[i] = np.float32(0)


@_compiled
def _activate(x: Any, kind: int, out: Any) -> None:
    size = out.shape[0]
    if kind == 3:
        for i in range(size):
            gate = x[i]
            out[i] = gate / (np.float32(1) + np.float32(math.exp(-gate))) * x[size + i]
    elif kind == 2:
        for i in range(size):
            out[i] = np.float32(0.5) * x[i] * (np.float32(1) + np.float32(math.erf(x[i] * np.float32(0.70710678118))))
    else:
        for i in range(size):
            v = max(x[i], np.float32(0))
            out[i] = v * v if kind == 1 else v


@_compiled
def _activations(x: Any, kind: int) -> Any:
    out = np.empty((x.shape[0], x.shape[1] // 2 if kind == 3 else x.shape[1]), np.float32)
    for row in range(x.shape[0]):
        _activate(x[row], kind, out[row])
    return out


@_compiled
def _times(x: Any, matrix: Any, bias: Any, out: Any) -> None:
    """out = x @ matrix + bias for one row. Eight rows of the matrix at a time: one pass over `out` for eight."""
    size, columns = matrix.shape
    if bias.shape[0]:
        for j in range(columns):
            out[j] = bias[j]
    else:
        for j in range(columns):
            out[j] = np.float32(0)
    k = 0
    while k + 8 <= size:
        x0, x1, x2, x3, x4, x5, x6, x7 = x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        m0, m1, m2, m3 = matrix[k], matrix[k + 1], matrix[k + 2], matrix[k + 3]
        m4, m5, m6, m7 = matrix[k + 4], matrix[k + 5], matrix[k + 6], matrix[k + 7]
        for j in range(columns):
            out[j] += (
                x0 * m0[j] + x1 * m1[j] + x2 * m2[j] + x3 * m3[j]
                + x4 * m4[j] + x5 * m5[j] + x6 * m6[j] + x7 * m7[j]
            )  # fmt: skip
        k += 8
    while k < size:
        for j in range(columns):
            out[j] += x[k] * matrix[k, j]
        k += 1


@_compiled
def _layers(x: Any, qkv: Any, qkv_bias: Any, out: Any, out_bias: Any, up: Any, up_bias: Any, down: Any,
            down_bias: Any, head: Any, head_bias: Any, gains: Any, cos: Any, sin: Any, keys: Any, values: Any,
            row: int, position: int, heads: int, norm: int, final: int, eps: float, mlp: int) -> Any:  # fmt: skip
    """All layers and the head for one token of one row: x [n_embd] is overwritten; logits [vocab_size]."""
    kv = keys.shape[2]
    n = np.empty_like(x)
    looked = np.empty_like(x)
    added = np.empty_like(x)
    mixed = np.empty(qkv.shape[2], np.float32)
    inner = np.empty(up.shape[2], np.float32)
    hidden = np.empty(down.shape[1], np.float32)
    scores = np.empty(keys.shape[3], np.float32)
    logits = np.empty(head.shape[1], np.float32)
    c, s = (cos[position], sin[position]) if cos.shape[0] else (cos[:0].reshape(-1), sin[:0].reshape(-1))
    for layer in range(qkv.shape[0]):
        _norm(x, norm, eps, n)
        _times(n, qkv[layer], qkv_bias[layer], mixed)
        _attend(mixed, heads, kv, gains[layer], eps, c, s, keys[layer, row], values[layer, row], position, scores,
                looked)  # fmt: skip
        _times(looked, out[layer], out_bias[layer], added)
        for i in range(x.shape[0]):
            x[i] += added[i]
        _norm(x, norm, eps, n)
        _times(n, up[layer], up_bias[layer], inner)
        _activate(inner, mlp, hidden)
        _times(hidden, down[layer], down_bias[layer], added)
        for i in range(x.shape[0]):
            x[i] += added[i]
    if final:
        _norm(x, norm, eps, n)
        _times(n, head, head_bias, logits)
    else:
        _times(x, head, head_bias, logits)
    return logits


def _gains(w: Weights) -> Floats:
    """Gains of queries and keys, [n_layer, 2, head width], or [n_layer, 2, 0] without them."""
    if w.q_gain is None or w.k_gain is None:
        return np.empty((w.config.n_layer, 2, 0), np.float32)
    return np.stack((w.q_gain, w.k_gain), axis=1)


def _angles(w: Weights) -> tuple[Floats, Floats]:
    return (_NONE2, _NONE2) if w.cos is None or w.sin is None else (w.cos, w.sin)


def normed(x: Floats, kind: int, eps: float) -> Floats:
    """As in `steps_numpy`."""
    return _norms(x, kind, eps)


def attend_next(qkv: Floats, w: Weights, layer: int, keys: Floats, values: Floats, lengths: Ints) -> Floats:
    """As in `steps_numpy`; qkv is overwritten."""
    config = w.config
    return _attend_rows(
        qkv, config.n_head, w.n_kv_head, _gains(w)[layer], config.norm_eps, *_angles(w), keys, values, lengths
    )


def attend_prompt(qkv: Floats, w: Weights, layer: int, keys: Floats, values: Floats, last: bool) -> Floats:
    """As in `steps_numpy`; qkv is overwritten."""
    count, config, width, kv = len(qkv), w.config, w.head_width, w.n_kv_head
    _place_rows(qkv, config.n_head, kv, width, _gains(w)[layer], config.norm_eps, *_angles(w))
    parts = qkv.reshape(count, -1, width)
    keys[:, :count] = parts[:, config.n_head : config.n_head + kv].transpose(1, 0, 2)
    values[:, :count] = parts[:, config.n_head + kv :].transpose(1, 0, 2)
    q = parts[-1:, : config.n_head] if last else parts[:, : config.n_head]
    group = config.n_head // kv
    grouped = np.ascontiguousarray(q.transpose(1, 0, 2))
    seen = keys[:, :count]
    scores = np.empty((config.n_head, len(q), count), np.float32)
    for h in range(config.n_head):
        np.dot(grouped[h], seen[h // group].T, out=scores[h])
    if last:
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        scores /= scores.sum(axis=-1, keepdims=True)
    else:
        _causal_softmax(scores)
    out = np.empty((len(q), config.n_head, width), np.float32)
    for h in range(config.n_head):
        out[:, h] = scores[h] @ values[h // group, :count]
    return out.reshape(len(q), -1)


def activated(x: Floats, kind: str) -> Floats:
    """As in `steps_numpy`."""
    return _activations(x, KINDS[kind])


class Decoder:
    """A token of one sequence, from embedding to logits, in one compiled call.

    Args:
        w: the model.
    """

    def __init__(self, w: Weights) -> None:
        config = w.config
        empty = np.empty((config.n_layer, 0), np.float32)

        def biases(b: Floats | None) -> Floats:
            return empty if b is None else b

        self._fixed = (
            w.qkv, biases(w.qkv_bias), w.out, biases(w.out_bias), w.up, biases(w.up_bias), w.down,
            biases(w.down_bias), w.head, _NONE if w.head_bias is None else w.head_bias, _gains(w), *_angles(w),
        )  # fmt: skip
        norm = 2 if config.norm == "layernorm" else 1
        self._shape = (config.n_head, norm, int(config.final_norm), config.norm_eps, KINDS[config.mlp])

    def next(self, x: Floats, keys: Floats, values: Floats, row: int, position: int) -> Floats:
        """Logits [vocab_size] after a token at a position.

        Args:
            x: its embedding [n_embd], overwritten.
            keys, values: of all layers and rows; the row's are extended.
            row: of the sequence.
            position: tokens that the row has already.
        """
        return _layers(x, *self._fixed, keys, values, row, position, *self._shape)


def warm() -> None:
    """Load every compiled function, compiling where the cache has none: run once what a tiny model needs."""
    from microgpt.inference.light import LightBackend

    shape = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=4, mlp="relu", mlp_hidden=2, qk_norm=False)
    names = ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")
    tensors = {f"layer0.{name}": np.zeros((2, 2), np.float32) for name in names}
    tensors |= {name: np.zeros((2, 2), np.float32) for name in ("wte", "lm_head")}
    backend = LightBackend(fold(shape, tensors), 2, "now")
    backend.prefill(0, [0])
    backend.decode([0])
    backend.prefill(0, [0, 0])
    backend.prefill(1, [0])
    backend.decode([0, 0])
