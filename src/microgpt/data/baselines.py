"""What a model must beat: unigram and bigram counts of the same training tokens."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from microgpt.data.shards import TokenSet

MAX_TOKENS = 50_000_000


@dataclass(frozen=True)
class Baselines:
    """Losses on the validation set in nats a token.

    Attributes:
        unigram: tokens by frequency, one added to each count.
        bigram: tokens given the one before, interpolated with the unigram (Witten and Bell 1991).
    """

    unigram: float
    bigram: float


def baselines(parts: list[tuple[TokenSet, TokenSet]], vocab_size: int) -> Baselines:
    """Count training tokens (the first 50 million of a data set) and score the validation targets.

    Both see exactly the targets that a model is scored on, the closing BOS of each document included. Of several
    data sets each is scored by its own counts.

    Args:
        parts: (training set, validation set) of each data set.
        vocab_size: number of token ids.
    """
    losses = [_baseline(train, val, vocab_size) for train, val in parts]
    weights = np.array([count for _, _, count in losses], np.float64)
    unigram, bigram = (np.average([entry[i] for entry in losses], weights=weights) for i in (0, 1))
    return Baselines(float(unigram), float(bigram))


def _baseline(train: TokenSet, val: TokenSet, vocab_size: int) -> tuple[float, float, int]:
    """(unigram loss, bigram loss, number of targets) of one data set."""
    count = min(train.positions, MAX_TOKENS)
    stream = np.asarray(train.tokens[: count + 1]).astype(np.int64)
    before, after = stream[:-1], stream[1:]
    frequency = np.bincount(after, minlength=vocab_size) + 1.0
    unigram = frequency / frequency.sum()
    pairs, pair_counts = np.unique(before * vocab_size + after, return_counts=True)
    history = np.bincount(before, minlength=vocab_size).astype(np.float64)
    followers = np.bincount(pairs // vocab_size, minlength=vocab_size).astype(np.float64)

    scored = np.asarray(val.tokens[: val.positions + 1]).astype(np.int64)
    h, w = scored[:-1], scored[1:]
    wanted = np.ones(len(w), bool) if val.mask is None else np.asarray(val.mask[1 : val.positions + 1]) > 0
    h, w = h[wanted], w[wanted]
    code = h * vocab_size + w
    at = np.minimum(np.searchsorted(pairs, code), len(pairs) - 1)
    seen = np.where(pairs[at] == code, pair_counts[at], 0)
    # a history that was never seen has no followers: then the unigram alone speaks
    weight = np.where(history[h] > 0, followers[h], 1.0)
    probability = (seen + weight * unigram[w]) / (history[h] + weight)
    return float(-np.log(unigram[w]).mean()), float(-np.log(probability).mean()), len(w)
