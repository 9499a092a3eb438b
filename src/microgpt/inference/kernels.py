"""Decoding's arithmetic as compiled functions: rows, tiles of products, attention, a whole token of many rows.

Everything releases the interpreter's lock. Arithmetic may be regrouped (so that it vectorises) but NaN and infinity
keep their meaning. Optional arrays are given with no elements where a model has no such part.
"""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from microgpt import files

os.environ.setdefault("NUMBA_CACHE_DIR", str(files.cache_folder() / "numba"))
import numba

compiled: Any = numba.njit(nogil=True, cache=True, fastmath={"reassoc", "contract", "nsz", "arcp"})


@compiled
def norm_row(x: Any, kind: int, eps: float, out: Any) -> None:
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


@compiled
def norm_rows(x: Any, kind: int, eps: float) -> Any:
    out = np.empty_like(x)
    for i in range(x.shape[0]):
        norm_row(x[i], kind, eps, out[i])
    return out


@compiled
def exp_row(x: Any, bits: Any, powers: Any, size: int) -> None:
    """e to the power of the first numbers of x, in place, to 2e-7: math.exp does not vectorise.

    x = n ln 2 + r; e**r is a polynomial (Cephes' expf), and 2**n is added to the exponent's bits.

    Args:
        x: at most 88.
        bits: the same memory as int32.
        powers: int32 scratch, as long.
        size: how many.
    """
    for i in range(size):
        v = max(x[i], np.float32(-87))
        n = np.float32(math.floor(v * np.float32(1.44269504) + np.float32(0.5)))
        r = v - n * np.float32(0.693359375) + n * np.float32(2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        x[i] = p * r * r + r + np.float32(1)
        powers[i] = np.int32(n)
    for i in range(size):
        bits[i] += powers[i] << np.int32(23)


@compiled
def softmax_row(x: Any, bits: Any, powers: Any, size: int) -> None:
    """Of the first numbers of x, in place; arguments as of `exp_row`."""
    top = x[0]
    for i in range(size):
        top = max(top, x[i])
    for i in range(size):
        x[i] -= top
    exp_row(x, bits, powers, size)
    total = np.float32(0)
    for i in range(size):
        total += x[i]
    factor = np.float32(1) / total
    for i in range(size):
        x[i] *= factor


@compiled
def times_row(x: Any, matrix: Any, first: int, last: int, bias: Any, out: Any) -> None:
    """out = x @ matrix + bias for one row and the columns first .. last-1, eight rows of the matrix at a time.

    A slice of columns of the whole matrix would have an unknown stride, which does not vectorise.
    """
    size, columns = matrix.shape[0], last - first
    y = out[first:last]
    if bias.shape[0]:
        for j in range(columns):
            y[j] = bias[first + j]
    else:
        for j in range(columns):
            y[j] = np.float32(0)
    k = 0
    while k + 8 <= size:
        x0, x1, x2, x3, x4, x5, x6, x7 = x[k], x[k + 1], x[k + 2], x[k + 3], x[k + 4], x[k + 5], x[k + 6], x[k + 7]
        m0, m1 = matrix[k, first:last], matrix[k + 1, first:last]
        m2, m3 = matrix[k + 2, first:last], matrix[k + 3, first:last]
        m4, m5 = matrix[k + 4, first:last], matrix[k + 5, first:last]
        m6, m7 = matrix[k + 6, first:last], matrix[k + 7, first:last]
        for j in range(columns):
            y[j] += (
                x0 * m0[j] + x1 * m1[j] + x2 * m2[j] + x3 * m3[j]
                + x4 * m4[j] + x5 * m5[j] + x6 * m6[j] + x7 * m7[j]
            )  # fmt: skip
        k += 8
    while k < size:
        m = matrix[k, first:last]
        for j in range(columns):
            y[j] += x[k] * m[j]
        k += 1


@compiled
def product(x: Any, matrix: Any, bias: Any, out: Any, tile: Any, block: Any) -> None:
    """out = x @ matrix + bias for any number of rows.

    A tile of 4 rows by 128 columns stays in the first cache while the matrix streams by. BLAS packs the matrix first,
    which for few rows costs as much as the product itself; here that is done for many rows only, in `block`
    [as many rows as the matrix, 128], which stays in the second cache.
    """
    rows, size = x.shape
    columns = matrix.shape[1]
    fours = rows - rows % 4 if rows > 1 else 0
    whole = columns - columns % 128 if fours else 0
    for c in range(0, whole, 128):
        if block.shape[0]:
            for k in range(size):
                source, target = matrix[k, c : c + 128], block[k]
                for j in range(128):
                    target[j] = source[j]
            tiles(x, fours, block, 0, bias, c, out, tile)
        else:
            tiles(x, fours, matrix, c, bias, c, out, tile)
    if whole < columns:
        for r in range(fours):
            times_row(x[r], matrix, whole, columns, bias, out[r])
    for r in range(fours, rows):
        times_row(x[r], matrix, 0, columns, bias, out[r])


@compiled
def tiles(x: Any, rows: int, matrix: Any, first: int, bias: Any, c: int, out: Any, tile: Any) -> None:
    """128 columns of a product, from `first` in the matrix and from `c` in the result, four rows at a time."""
    size = x.shape[1]
    for r in range(0, rows, 4):
        for j in range(512):
            tile[j] = np.float32(0)
        x0, x1, x2, x3 = x[r], x[r + 1], x[r + 2], x[r + 3]
        for k in range(0, size - 3, 4):
            a00, a01, a02, a03 = x0[k], x0[k + 1], x0[k + 2], x0[k + 3]
            a10, a11, a12, a13 = x1[k], x1[k + 1], x1[k + 2], x1[k + 3]
            a20, a21, a22, a23 = x2[k], x2[k + 1], x2[k + 2], x2[k + 3]
            a30, a31, a32, a33 = x3[k], x3[k + 1], x3[k + 2], x3[k + 3]
            m0, m1 = matrix[k, first : first + 128], matrix[k + 1, first : first + 128]
            m2, m3 = matrix[k + 2, first : first + 128], matrix[k + 3, first : first + 128]
            for j in range(128):
                b0, b1, b2, b3 = m0[j], m1[j], m2[j], m3[j]
                tile[j] += a00 * b0 + a01 * b1 + a02 * b2 + a03 * b3
                tile[128 + j] += a10 * b0 + a11 * b1 + a12 * b2 + a13 * b3
                tile[256 + j] += a20 * b0 + a21 * b1 + a22 * b2 + a23 * b3
                tile[384 + j] += a30 * b0 + a31 * b1 + a32 * b2 + a33 * b3
        for k in range(size - size % 4, size):
            m = matrix[k, first : first + 128]
            for i in range(4):
                for j in range(128):
                    tile[128 * i + j] += x[r + i, k] * m[j]
        for i in range(4):
            row = out[r + i, c : c + 128]
            if bias.shape[0]:
                for j in range(128):
                    row[j] = tile[128 * i + j] + bias[c + j]
            else:
                for j in range(128):
                    row[j] = tile[128 * i + j]


@compiled
def place_heads(heads: Any, width: int, gain: Any, eps: float, cos: Any, sin: Any) -> None:
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


@compiled
def attend_row(qkv: Any, heads: int, kv: int, gains: Any, eps: float, cos: Any, sin: Any, keys: Any, values: Any,
            position: int, scores: Any, bits: Any, powers: Any, out: Any) -> None:  # fmt: skip
    """Attention of one token: place, store, look; qkv is overwritten, keys and values are the row's."""
    width = keys.shape[1]
    place_heads(qkv[: heads * width], width, gains[0], eps, cos, sin)
    place_heads(qkv[heads * width : (heads + kv) * width], width, gains[1], eps, cos, sin)
    group = heads // kv
    for h in range(kv):
        for i in range(width):
            keys[h, i, position] = qkv[(heads + h) * width + i]
            values[h, position, i] = qkv[(heads + kv + h) * width + i]
    none = scores[:0]
    count = position + 1
    for h in range(heads):
        at = h * width
        times_row(qkv[at : at + width], keys[h // group], 0, count, none, scores)
        softmax_row(scores, bits, powers, count)
        times_row(scores, values[h // group, :count], 0, width, none, out[at : at + width])


@compiled
def place_rows(qkv: Any, heads: int, kv: int, width: int, gains: Any, eps: float, cos: Any, sin: Any) -> None:
    for p in range(qkv.shape[0]):
        c, s = (cos[p], sin[p]) if cos.shape[0] else (cos[:0].reshape(-1), sin[:0].reshape(-1))
        place_heads(qkv[p, : heads * width], width, gains[0], eps, c, s)
        place_heads(qkv[p, heads * width : (heads + kv) * width], width, gains[1], eps, c, s)


@compiled
def causal_softmax(scores: Any, first: int) -> None:
    """Of scores [heads, tokens, keys], in place; token t sees the keys up to first + t."""
    powers = np.empty(scores.shape[2], np.int32)
    for h in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            row = scores[h, t]
            softmax_row(row, row.view(np.int32), powers, first + t + 1)
            for i in range(first + t + 1, row.shape[0]):
                row[i] = np.float32(0)


@compiled
def activate_row(x: Any, kind: int, out: Any, bits: Any, powers: Any) -> None:
    """The MLP's activation of one row; `bits` is the memory of `out` as int32."""
    size = out.shape[0]
    if kind == 3:
        for i in range(size):
            out[i] = min(-x[i], np.float32(87))
        exp_row(out, bits, powers, size)
        for i in range(size):
            out[i] = x[i] / (np.float32(1) + out[i]) * x[size + i]
    elif kind == 2:
        for i in range(size):
            out[i] = np.float32(0.5) * x[i] * (np.float32(1) + np.float32(math.erf(x[i] * np.float32(0.70710678118))))
    elif kind == 4:  # (1 + tanh u) / 2 is the logistic function of 2u
        for i in range(size):
            u = np.float32(0.7978845608) * (x[i] + np.float32(0.044715) * x[i] * x[i] * x[i])
            out[i] = min(np.float32(-2) * u, np.float32(87))
        exp_row(out, bits, powers, size)
        for i in range(size):
            out[i] = x[i] / (np.float32(1) + out[i])
    else:
        for i in range(size):
            v = max(x[i], np.float32(0))
            out[i] = v * v if kind == 1 else v


@compiled
def activate_rows(x: Any, kind: int) -> Any:
    out = np.empty((x.shape[0], x.shape[1] // 2 if kind == 3 else x.shape[1]), np.float32)
    powers = np.empty(out.shape[1], np.int32)
    for row in range(x.shape[0]):
        activate_row(x[row], kind, out[row], out[row].view(np.int32), powers)
    return out


@compiled
def decode_rows(x: Any, rows: int, qkv: Any, qkv_bias: Any, out: Any, out_bias: Any, up: Any, up_bias: Any, down: Any,
            down_bias: Any, head: Any, head_bias: Any, gains: Any, cos: Any, sin: Any, keys: Any, values: Any,
            lengths: Any, first: int, logits: Any, heads: int, norm: int, final: int, eps: float,
            mlp: int) -> None:  # fmt: skip
    """All layers and the head for one token in each of the rows first, first + 1, ..., to logits [as many as x, ..].

    x [1 or a multiple of four, n_embd] is overwritten; what is in it beyond `rows` is computed and means nothing.
    """
    count, width = x.shape
    kv = keys.shape[2]
    n, looked, added = np.empty_like(x), np.zeros_like(x), np.empty_like(x)
    mixed = np.empty((count, qkv.shape[2]), np.float32)
    inner = np.empty((count, up.shape[2]), np.float32)
    hidden = np.zeros((count, down.shape[1]), np.float32)
    hidden_bits = hidden.view(np.int32)
    scores = np.empty(keys.shape[4], np.float32)
    bits = scores.view(np.int32)
    powers = np.empty(max(keys.shape[4], down.shape[1]), np.int32)
    tile, block = np.empty(512, np.float32), np.empty((0, 128), np.float32)
    for layer in range(qkv.shape[0]):
        for r in range(count):
            norm_row(x[r], norm, eps, n[r])
        product(n, qkv[layer], qkv_bias[layer], mixed, tile, block)
        for r in range(rows):
            p = lengths[r]
            c, s = (cos[p], sin[p]) if cos.shape[0] else (cos[:0].reshape(-1), sin[:0].reshape(-1))
            own_keys, own_values = keys[layer, first + r], values[layer, first + r]
            attend_row(mixed[r], heads, kv, gains[layer], eps, c, s, own_keys, own_values, p, scores, bits, powers,
                    looked[r])  # fmt: skip
        product(looked, out[layer], out_bias[layer], added, tile, block)
        for r in range(count):
            for i in range(width):
                x[r, i] += added[r, i]
            norm_row(x[r], norm, eps, n[r])
        product(n, up[layer], up_bias[layer], inner, tile, block)
        for r in range(rows):
            activate_row(inner[r], mlp, hidden[r], hidden_bits[r], powers)
        product(hidden, down[layer], down_bias[layer], added, tile, block)
        for r in range(count):
            for i in range(width):
                x[r, i] += added[r, i]
    if final:
        for r in range(count):
            norm_row(x[r], norm, eps, n[r])
        product(n, head, head_bias, logits, tile, block)
    else:
        product(x, head, head_bias, logits, tile, block)
