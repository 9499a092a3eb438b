"""The steps of decoding compiled with numba: those of `steps_numpy.py`, and a whole token in one call."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from microgpt.inference.kernels import activate_rows, causal_softmax, decode_rows, norm_rows, place_rows, product
from microgpt.inference.steps_numpy import Ints
from microgpt.inference.weights import Floats, Weights
from microgpt.runtime import cpu_threads

CHUNK = 64  # queries of a prompt at a time
PACKED_ROWS = 32  # so many rows are worth packing the matrix for
SHARE_ROWS = 8  # a thread must have so many rows, and so much to do, to be worth waking
SHARE_FLOPS = 20_000_000
KINDS = {"relu": 0, "relu2": 1, "gelu": 2, "swiglu": 3, "gelu_tanh": 4}
_NONE = np.empty(0, np.float32)
_NONE2 = np.empty((0, 0), np.float32)


def _gains(w: Weights, layer: int) -> Floats:
    """Gains of a layer's queries and keys, [2, head width], or [2, 0] without them."""
    if w.q_gain is None or w.k_gain is None:
        return np.empty((2, 0), np.float32)
    return np.stack((w.q_gain[layer], w.k_gain[layer]))


def _angles(w: Weights) -> tuple[Floats, Floats]:
    return (_NONE2, _NONE2) if w.cos is None or w.sin is None else (w.cos, w.sin)


def times(x: Floats, matrix: Floats, bias: Floats | None) -> Floats:
    """As in `steps_numpy`."""
    out = np.empty((len(x), matrix.shape[1]), np.float32)
    block = np.empty((len(matrix) if len(x) >= PACKED_ROWS else 0, 128), np.float32)
    product(x, matrix, _NONE if bias is None else bias, out, np.empty(512, np.float32), block)
    return out


def normed(x: Floats, kind: int, eps: float) -> Floats:
    """As in `steps_numpy`."""
    return norm_rows(x, kind, eps)


def attend_prompt(qkv: Floats, w: Weights, layer: int, keys: Floats, values: Floats, last: bool) -> Floats:
    """As in `steps_numpy`; qkv is overwritten."""
    count, config, width, kv = len(qkv), w.config, w.head_width, w.n_kv_head
    place_rows(qkv, config.n_head, kv, width, _gains(w, layer), config.norm_eps, *_angles(w))
    parts = qkv.reshape(count, -1, width)
    keys[:, :, :count] = parts[:, config.n_head : config.n_head + kv].transpose(1, 2, 0)
    values[:, :count] = parts[:, config.n_head + kv :].transpose(1, 0, 2)
    first = count - 1 if last else 0
    queries = np.ascontiguousarray(parts[first:, : config.n_head].transpose(1, 0, 2))
    group = config.n_head // kv
    out = np.empty((count - first, config.n_head, width), np.float32)
    for start in range(0, count - first, CHUNK):  # what comes after a chunk is neither multiplied nor looked at
        end = min(start + CHUNK, count - first)
        seen = first + end
        scores = np.empty((config.n_head, end - start, seen), np.float32)
        for h in range(config.n_head):
            np.dot(queries[h, start:end], keys[h // group, :, :seen], out=scores[h])
        causal_softmax(scores, first + start)
        for h in range(config.n_head):
            out[start:end, h] = scores[h] @ values[h // group, :seen]
    return out.reshape(count - first, -1)


def activated(x: Floats, kind: str) -> Floats:
    """As in `steps_numpy`."""
    return activate_rows(x, KINDS[kind])


class Decoder:
    """A token in each row, from embedding to logits, in one compiled call.

    Args:
        w: the model.
    """

    def __init__(self, w: Weights) -> None:
        config = w.config
        empty = np.empty((config.n_layer, 0), np.float32)

        def biases(b: Floats | None) -> Floats:
            return empty if b is None else b

        gains = np.stack([_gains(w, layer) for layer in range(config.n_layer)])
        self._fixed = (
            w.qkv, biases(w.qkv_bias), w.out, biases(w.out_bias), w.up, biases(w.up_bias), w.down,
            biases(w.down_bias), w.head, _NONE if w.head_bias is None else w.head_bias, gains, *_angles(w),
        )  # fmt: skip
        norm = 2 if config.norm == "layernorm" else 1
        self._shape = (config.n_head, norm, int(config.final_norm), config.norm_eps, KINDS[config.mlp])
        self._row_flops = w.layer_bytes // 2
        self._threads = cpu_threads()
        self._pool = ThreadPoolExecutor(self._threads, "decoder")  # its threads start when they are needed

    def next(self, x: Floats, keys: Floats, values: Floats, lengths: Ints) -> Floats:
        """Logits [rows, vocab_size] after one more token in each row.

        Many rows are shared out among threads, which wait for each other only at the end.

        Args:
            x: the tokens' embeddings [rows, n_embd], overwritten.
            keys, values: of all layers and rows; those of the rows are extended.
            lengths: tokens that each row has already.
        """
        rows = len(x)
        if rows > 1 and rows % 4:
            x = np.concatenate((x, np.zeros((-rows % 4, x.shape[1]), np.float32)))
        logits = np.empty((len(x), self._fixed[8].shape[1]), np.float32)

        def some(first: int, last: int) -> None:
            decode_rows(x[first:last], min(last, rows) - first, *self._fixed, keys, values, lengths[first:], first,
                    logits[first:last], *self._shape)  # fmt: skip

        shares = max(1, min(self._threads, len(x) // SHARE_ROWS, len(x) * self._row_flops // SHARE_FLOPS))
        size = -(-len(x) // shares // 4) * 4
        later = [self._pool.submit(some, at, min(at + size, len(x))) for at in range(size, len(x), size)]
        some(0, min(size, len(x)))
        for share in later:
            share.result()
        return logits[:rows]
