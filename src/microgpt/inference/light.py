"""The light backend: decoding on the CPU without torch.

The first tokens come from NumPy, which needs no time to get ready. When more follow, numba loads its compiled code in
a thread of its own and takes over once it is there. Without numba NumPy does it all, at half the speed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from microgpt.config.schema import ModelConfig
from microgpt.inference import steps_numpy
from microgpt.inference.weights import Floats, Weights, fold

PATIENCE = 64  # tokens that NumPy decodes before numba is loaded


class LightBackend:
    """Folded weights and the keys and values of `rows` sequences.

    Args:
        weights: of the model.
        rows: sequences at a time.
        compiled: `late` (see above), `now` (wait for numba) or `never`.
    """

    def __init__(self, weights: Weights, rows: int, compiled: str = "late") -> None:
        self.weights, self.vocab_size = weights, len(weights.wte)
        c, heads, width = weights.config, weights.n_kv_head, weights.head_width
        # memory is only taken where it is touched; keys are transposed, so that scores are sums of whole rows;
        # 16 more places keep rows from lying a power of two apart, where they would share few lines of the caches
        self._keys = np.empty((c.n_layer, rows, heads, width, c.block_size + 16), np.float32)
        self._values = np.empty((c.n_layer, rows, heads, c.block_size + 16, width), np.float32)
        self._lengths = np.zeros(rows, np.int64)
        self._norm = 2 if self.config.norm == "layernorm" else 1
        self._steps: Any = steps_numpy
        self._decoder: Any = None
        self._loading: threading.Thread | None = None
        self._patience = PATIENCE if compiled == "late" else None
        if compiled == "now":
            self._take_over()

    @property
    def config(self) -> ModelConfig:
        """The model's shape."""
        return self.weights.config

    def prefill(self, row: int, ids: Sequence[int]) -> Floats:
        self._settle(1)
        w, steps, count = self.weights, self._steps, len(ids)
        x = self._embedded(np.asarray(ids), np.arange(count))
        final = self.config.n_layer - 1
        for layer in range(self.config.n_layer):
            last = layer == final  # what only later layers would read is left out
            qkv = self._times(steps.normed(x, self._norm, self.config.norm_eps), w.qkv[layer], w.qkv_bias, layer)
            seen = steps.attend_prompt(qkv, w, layer, self._keys[layer, row], self._values[layer, row], last)
            x = (x[-1:] if last else x) + self._times(seen, w.out[layer], w.out_bias, layer)
            x = self._mlp(x, layer)
        self._lengths[row] = count
        return self._logits(x)[0]

    def decode(self, tokens: Sequence[int]) -> Floats:
        rows = len(tokens)
        self._settle(rows)
        w, steps, lengths = self.weights, self._steps, self._lengths[:rows]
        x = self._embedded(np.asarray(tokens), lengths)
        if self._decoder is not None:
            logits = self._decoder.next(x, self._keys, self._values, lengths)
        else:
            for layer in range(self.config.n_layer):
                qkv = self._times(steps.normed(x, self._norm, self.config.norm_eps), w.qkv[layer], w.qkv_bias, layer)
                seen = steps.attend_next(qkv, w, layer, self._keys[layer], self._values[layer], lengths)
                x = x + self._times(seen, w.out[layer], w.out_bias, layer)
                x = self._mlp(x, layer)
            logits = self._logits(x)
        lengths += 1
        return logits

    def move(self, source: int, target: int) -> None:
        count = self._lengths[source]
        self._keys[:, target, :, :, :count] = self._keys[:, source, :, :, :count]
        self._values[:, target, :, :count] = self._values[:, source, :, :count]
        self._lengths[target] = count

    def _embedded(self, ids: Any, positions: Any) -> Floats:
        w = self.weights
        x = w.wte[ids]
        if w.wpe is not None:
            x += w.wpe[positions]
        if self.config.embed_norm:
            x = self._steps.normed(x, self._norm, self.config.norm_eps)
            if w.embed_gain is not None:
                x *= w.embed_gain
            if w.embed_bias is not None:
                x += w.embed_bias
        return x

    def _times(self, x: Floats, matrix: Floats, biases: Floats | None, layer: int) -> Floats:
        return self._steps.times(x, matrix, None if biases is None else biases[layer])

    def _mlp(self, x: Floats, layer: int) -> Floats:
        w, steps = self.weights, self._steps
        inner = self._times(steps.normed(x, self._norm, self.config.norm_eps), w.up[layer], w.up_bias, layer)
        return x + self._times(steps.activated(inner, self.config.mlp), w.down[layer], w.down_bias, layer)

    def _logits(self, x: Floats) -> Floats:
        if self.config.final_norm:
            x = self._steps.normed(x, self._norm, self.config.norm_eps)
        return self._steps.times(x, self.weights.head, self.weights.head_bias)

    # ---- from NumPy to numba

    def _settle(self, tokens: int) -> None:
        """Count tokens, load numba when there are many, and change over when it is there."""
        if self._patience is None:
            return
        self._patience -= tokens
        if self._patience >= 0:
            return
        if self._loading is None:
            self._loading = threading.Thread(target=_load_compiled, daemon=True)
            self._loading.start()
        elif not self._loading.is_alive():
            self._take_over()

    def _take_over(self) -> None:
        self._patience = None
        try:
            from microgpt.inference import steps_numba
        except ImportError:  # the `fast` extra is not installed
            return
        self._steps, self._decoder = steps_numba, steps_numba.Decoder(self.weights)


def _load_compiled() -> None:
    """Load every compiled function, compiling where the cache has none: run once what a tiny model needs."""
    shape = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=4, mlp="relu", mlp_hidden=2, qk_norm=False)
    names = ("attn_wq", "attn_wk", "attn_wv", "attn_wo", "mlp_fc1", "mlp_fc2")
    tensors = {f"layer0.{name}": np.zeros((2, 2), np.float32) for name in names}
    tensors |= {name: np.zeros((2, 2), np.float32) for name in ("wte", "lm_head")}
    backend = LightBackend(fold(shape, tensors), 2, "now")
    backend.prefill(0, [0])
    backend.decode([0])
    backend.prefill(1, [0, 0])
    backend.decode([0, 0])
