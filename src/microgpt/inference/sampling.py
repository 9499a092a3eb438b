"""Choosing the next token of each sequence from its logits, all sequences at once, in NumPy.

Every backend is drawn from by this file alone, so that one seed means one text whichever computed the logits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from microgpt.config.schema import SamplingConfig

Floats = npt.NDArray[np.float32]
COLDEST = 1e-6  # below it logits over temperature leave the numbers, and the likeliest token always wins
FEW = 256  # candidates that are sorted before the whole vocabulary is


class Drawing:
    """What drawing the tokens of one sequence needs to know, and remembers.

    Args:
        sampling: the settings.
        prompt: ids that come before.
        ends: ids that end the sequence; held back until `min_new_tokens`.
        seed: of this sequence.
        bias: added to the logits of ids.
    """

    def __init__(
        self,
        sampling: SamplingConfig,
        prompt: Sequence[int],
        ends: Sequence[int],
        seed: int,
        bias: Mapping[int, float] | None = None,
    ) -> None:
        self.sampling, self.ends, self.count = sampling, list(ends), 0
        self.history = list(prompt)
        self.numbers = np.random.Generator(np.random.Philox(seed))
        self.bias = dict(bias or {})
        self.written: dict[int, int] = {}
        s = sampling
        self._counts = s.frequency_penalty != 0 or s.presence_penalty != 0
        self._plain = not self.bias and not self._counts and (s.repetition_penalty == 1 or not s.repeat_last_n)
        self.greedy = s.temperature < COLDEST

    def adjust(self, logits: Floats) -> None:
        """Apply penalties and biases to the logits [vocab_size] of the next token, in place.

        The repetition penalty (Keskar et al. 2019, arXiv:1909.05858) divides a positive logit and multiplies a
        negative one; it looks at the last `repeat_last_n` tokens, those of the prompt among them. The frequency and
        presence penalties are OpenAI's and count what was written since the prompt.
        """
        s = self.sampling
        if not self._plain:
            if s.repetition_penalty != 1 and s.repeat_last_n:
                ids = np.fromiter(set(self.history[-s.repeat_last_n :]), np.int64)
                chosen = logits[ids]
                penalty = np.float32(s.repetition_penalty)
                logits[ids] = np.where(chosen > 0, chosen / penalty, chosen * penalty)
            if self._counts:
                for token, count in self.written.items():
                    logits[token] -= s.frequency_penalty * count + s.presence_penalty
            for token, value in self.bias.items():
                logits[token] += value
        if self.count < s.min_new_tokens:
            logits[self.ends] = -np.inf

    def take(self, token: int) -> None:
        """Remember a token that was drawn."""
        self.history.append(token)
        self.count += 1
        if self._counts:
            self.written[token] = self.written.get(token, 0) + 1


def next_tokens(logits: Floats, drawings: Sequence[Drawing]) -> list[int]:
    """One token for each row of logits [rows, vocab_size], which are overwritten.

    In this order: penalties and biases, temperature, top-k, top-p (Holtzman et al. 2019, arXiv:1904.09751), min-p.
    Temperature 0, or next to it, takes the likeliest token and draws no random number.
    """
    for row, drawing in zip(logits, drawings):
        drawing.adjust(row)
    warm = [i for i, d in enumerate(drawings) if not d.greedy]
    if not warm:
        return logits.argmax(axis=1).tolist()
    settings = [drawings[i].sampling for i in warm]
    vocabulary = logits.shape[1]
    scaled = logits if len(warm) == len(drawings) else logits[warm]
    scaled = scaled / np.array([s.temperature for s in settings], np.float32)[:, None]
    uniform = np.array([drawings[i].numbers.random() for i in warm])
    limits = [s.top_k if 0 < s.top_k < vocabulary else vocabulary for s in settings]
    sorted_too = [s.top_p < 1 or limit < vocabulary for s, limit in zip(settings, limits)]
    tokens = np.zeros(len(drawings), np.int64)
    if len(warm) < len(drawings):
        tokens[:] = logits.argmax(axis=1)
    for ordered in (True, False):
        rows = [i for i, wanted in enumerate(sorted_too) if wanted == ordered]
        if not rows:
            continue
        some = scaled if len(rows) == len(warm) else scaled[rows]
        of = [settings[i] for i in rows]
        least = np.array([s.min_p for s in of], np.float32)
        if ordered:
            found = _of_sorted(some, np.array([limits[i] for i in rows]), of, least, uniform[rows])
        else:
            found = _of_all(some, least, uniform[rows])
        tokens[[warm[i] for i in rows]] = found
    return tokens.tolist()


def _of_all(logits: Floats, least: Floats, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Tokens drawn from all that have at least the share `least` of the likeliest one's probability."""
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    if least.any():
        weights[weights < least[:, None]] = 0
    return _drawn(weights, uniform)


def _drawn(weights: Floats, uniform: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The column of each row where its running sum passes the uniform number's share."""
    sums = weights.cumsum(axis=1, dtype=np.float64)
    return (sums <= (uniform * sums[:, -1])[:, None]).sum(axis=1)


def _of_sorted(
    logits: Floats,
    limits: npt.NDArray[np.int64],
    settings: Sequence[SamplingConfig],
    least: Floats,
    uniform: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Tokens drawn after top-k, top-p and min-p, from the likeliest down."""
    vocabulary = logits.shape[1]
    top_p = np.array([s.top_p for s in settings], np.float32)
    bounded = limits < vocabulary
    size = int(min(vocabulary, max(limits[bounded].max(initial=0), 0 if bounded.all() else FEW)))
    while True:
        if size < vocabulary:
            columns = np.argpartition(logits, vocabulary - size, axis=1)[:, vocabulary - size :]
            columns.sort(axis=1)  # equal logits stand in the order of their ids
            values = np.take_along_axis(logits, columns, axis=1)
        else:
            columns, values = None, logits
        order = np.argsort(-values, axis=1, kind="stable")
        values = np.take_along_axis(values, order, axis=1)
        weights = np.exp(values - values[:, :1])
        weights[np.arange(size)[None, :] >= limits[:, None]] = 0
        running = weights.cumsum(axis=1, dtype=np.float32)
        total = running[:, -1].copy()
        if size < vocabulary and not bounded.all():
            open_rows = logits[~bounded]
            total[~bounded] = np.exp(open_rows - values[~bounded, :1]).sum(axis=1)
            if (running[~bounded, -1] < top_p[~bounded] * total[~bounded]).any():
                size = vocabulary  # the nucleus is larger than the few candidates
                continue
        # a token stays while those before it have less than top_p
        cut = (running - weights >= (top_p * total)[:, None]) & (top_p < 1)[:, None]
        weights[cut | (weights < least[:, None])] = 0
        picked = np.take_along_axis(order, _drawn(weights, uniform)[:, None], axis=1)
        return (picked if columns is None else np.take_along_axis(columns, picked, axis=1))[:, 0]


def log_probabilities(logits: Floats, token: int, count: int) -> tuple[float, list[tuple[int, float]]]:
    """Of the model's own distribution, before any setting: the token's and the `count` likeliest, in nats.

    Args:
        logits: shape [vocab_size].
        token: the one that was drawn.
        count: how many of the likeliest, at most vocab_size.
    """
    wide = logits.astype(np.float64)
    wide -= wide.max()
    wide -= np.log(np.exp(wide).sum())
    count = min(count, wide.size)
    best = (
        np.argpartition(wide, wide.size - count)[wide.size - count :] if 0 < count < wide.size else np.arange(count)
    )
    best = best[np.lexsort((best, -wide[best]))]
    return float(wide[token]), [(int(i), float(wide[i])) for i in best]
