"""The steps of decoding between the matrix products, in NumPy: right at once, with nothing to compile.

`steps_numba.py` has them compiled; tests hold both to the plain model.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from microgpt.inference.weights import Floats, Weights

Ints = npt.NDArray[np.int64]


def times(x: Floats, matrix: Floats, bias: Floats | None) -> Floats:
    """x @ matrix + bias."""
    y = x @ matrix
    if bias is not None:
        y += bias
    return y


def normed(x: Floats, kind: int, eps: float) -> Floats:
    """Rows of x [n, width] with mean square 1 (kind 1), or mean 0 and variance 1 (kind 2)."""
    if kind == 2:
        mean: Floats = x.mean(axis=1, keepdims=True, dtype=np.float32)
        x = x - mean
    return x / _root_mean_square(x, eps)


def _root_mean_square(x: Floats, eps: float) -> Floats:
    """Over the last axis, which stays with size 1."""
    squares: Floats = np.einsum("...i,...i->...", x, x)[..., None]
    squares /= x.shape[-1]
    squares += eps
    return np.sqrt(squares)


def placed(heads: Floats, gain: Floats | None, w: Weights, positions: Ints) -> Floats:
    """Queries or keys [n, heads, head width], normalised with a gain where there is one, and rotated."""
    if gain is not None:
        heads = heads / _root_mean_square(heads, w.config.norm_eps) * gain
    if w.cos is not None and w.sin is not None:
        cos, sin = w.cos[positions][:, None], w.sin[positions][:, None]
        half = heads.shape[2] // 2
        first, second = heads[:, :, :half], heads[:, :, half:]
        turned = np.empty_like(heads)
        turned[:, :, :half] = first * cos - second * sin
        turned[:, :, half:] = second * cos + first * sin
        return turned
    return heads


def softmax(scores: Floats) -> Floats:
    """Over the last axis; the scores are overwritten."""
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def attend_next(qkv: Floats, w: Weights, layer: int, keys: Floats, values: Floats, lengths: Ints) -> Floats:
    """One more token in each row: its key and value are stored, and it looks at all of its sequence.

    Args:
        qkv: shape [rows, (n_head + 2 n_kv_head) * head width].
        w: the model.
        layer: which one.
        keys, values: the layer's, shape [at least rows, n_kv_head, head width, block_size], and the last two swapped.
        lengths: tokens that each row has already.

    Returns:
        Shape [rows, n_embd].
    """
    q, k, v = split(qkv, w)
    gains = (None, None) if w.q_gain is None or w.k_gain is None else (w.q_gain[layer], w.k_gain[layer])
    q, k = placed(q, gains[0], w, lengths), placed(k, gains[1], w, lengths)
    group = w.config.n_head // w.n_kv_head
    out = np.empty((len(qkv), w.n_kv_head, group, w.head_width), np.float32)
    for row, length in enumerate(lengths.tolist()):
        keys[row, :, :, length], values[row, :, length] = k[row], v[row]
        grouped = q[row].reshape(w.n_kv_head, group, w.head_width)
        scores = softmax(grouped @ keys[row, :, :, : length + 1])
        np.matmul(scores, values[row, :, : length + 1], out=out[row])
    return out.reshape(len(qkv), -1)


def attend_prompt(qkv: Floats, w: Weights, layer: int, keys: Floats, values: Floats, last: bool) -> Floats:
    """The tokens of a prompt from position 0, each looking at itself and those before it.

    Args:
        qkv: shape [tokens, (n_head + 2 n_kv_head) * head width]; with `last` only the last token's query matters.
        w: the model.
        layer: which one.
        keys, values: of the layer and row, as in `attend_next`; filled.
        last: only the last token's result is wanted.

    Returns:
        Shape [tokens, n_embd], or [1, n_embd] with `last`.
    """
    count = len(qkv)
    positions = np.arange(count)
    q, k, v = split(qkv, w)
    if last:
        q = q[-1:]
    gains = (None, None) if w.q_gain is None or w.k_gain is None else (w.q_gain[layer], w.k_gain[layer])
    q, k = placed(q, gains[0], w, positions[-len(q) :]), placed(k, gains[1], w, positions)
    keys[:, :, :count], values[:, :count] = k.transpose(1, 2, 0), v.transpose(1, 0, 2)
    group = w.config.n_head // w.n_kv_head
    grouped = q.reshape(len(q), w.n_kv_head, group, w.head_width).transpose(1, 2, 0, 3)
    scores = grouped @ keys[:, None, :, :count]
    if not last:
        scores += np.triu(np.full((count, count), -np.inf, np.float32), 1)
    out = softmax(scores) @ values[:, None, :count]
    return out.transpose(2, 0, 1, 3).reshape(len(q), -1)


def split(qkv: Floats, w: Weights) -> tuple[Floats, Floats, Floats]:
    """Queries, keys and values, each [n, heads, head width]."""
    q, kv = w.config.n_embd, w.n_kv_head * w.head_width
    parts = (qkv[:, :q], qkv[:, q : q + kv], qkv[:, q + kv :])
    queries, keys, values = (p.reshape(len(qkv), -1, w.head_width) for p in parts)
    return queries, keys, values


def activated(x: Floats, kind: str) -> Floats:
    """The MLP's activation of x [n, hidden], or [n, 2 hidden] with the gate first for swiglu."""
    if kind == "swiglu":
        half = x.shape[1] // 2
        gate = x[:, :half]
        with np.errstate(over="ignore"):  # exp of a large number is inf, and the gate 0, as it should be
            below: Floats = 1 + np.exp(-gate)
            return gate / below * x[:, half:]
    if kind == "gelu":
        share: Floats = _erf(x)
        share += 1
        share *= 0.5
        return x * share
    if kind == "gelu_tanh":
        # (1 + tanh u) / 2 is the logistic function of 2u
        with np.errstate(over="ignore"):
            rest: Floats = 1 + np.exp(np.float32(-2 * (2 / np.pi) ** 0.5) * (x + np.float32(0.044715) * x * x * x))
            return x / rest
    x = np.maximum(x, 0)
    return x * x if kind == "relu2" else x


def _erf(x: Floats) -> Floats:
    """The error function of x / sqrt(2) to 1.2e-7: the Chebyshev fit of Press et al., Numerical Recipes, 6.2.2."""
    z = np.abs(x).astype(np.float64) * 0.5**0.5
    t = 1 / (1 + 0.5 * z)
    fit = (
        -1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
        -0.82215223, 0.17087277,
    )  # fmt: skip
    polynomial = np.zeros_like(t)
    for coefficient in reversed(fit):
        polynomial = polynomial * t + coefficient
    tail = t * np.exp(-z * z + polynomial)
    return np.where(x >= 0, 1 - tail, tail - 1).astype(np.float32)
