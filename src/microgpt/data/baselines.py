"""What a model must beat: unigram and bigram counts of the same training tokens."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from microgpt.data.shards import TokenSet

MAX_TOKENS = 50_000_000
PIECE = 1 << 22  # positions that are looked at together
Codes = npt.NDArray[np.int64]


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
    frequency = np.ones(vocab_size)
    history = np.zeros(vocab_size)
    pairs, pair_counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for before, after, _ in _pieces(train, min(train.positions, MAX_TOKENS)):
        frequency += np.bincount(after, minlength=vocab_size)
        history += np.bincount(before, minlength=vocab_size)
        pairs, pair_counts = _merged(pairs, pair_counts, before * vocab_size + after)
    unigram = frequency / frequency.sum()
    followers = np.bincount(pairs // vocab_size, minlength=vocab_size).astype(np.float64)

    sums, targets = [0.0, 0.0], 0
    for h, w, wanted in _pieces(val, val.positions):
        h, w = h[wanted], w[wanted]
        code = h * vocab_size + w
        at = np.minimum(np.searchsorted(pairs, code), len(pairs) - 1)
        seen = np.where(pairs[at] == code, pair_counts[at], 0)
        # a history that was never seen has no followers: then the unigram alone speaks
        weight = np.where(history[h] > 0, followers[h], 1.0)
        probability = (seen + weight * unigram[w]) / (history[h] + weight)
        sums = [sums[0] - float(np.log(unigram[w]).sum()), sums[1] - float(np.log(probability).sum())]
        targets += len(w)
    return sums[0] / targets, sums[1] / targets, targets


def _pieces(tokens: TokenSet, count: int) -> Iterator[tuple[Codes, Codes, npt.NDArray[np.bool_]]]:
    """(token, the one that follows, whether that is a target) of the first positions, so many at a time."""
    for low in range(0, count, PIECE):
        high = min(low + PIECE, count)
        stream = tokens.tokens[low : high + 1].astype(np.int64)
        wanted = np.ones(high - low, bool) if tokens.mask is None else tokens.mask[low + 1 : high + 1] > 0
        yield stream[:-1], stream[1:], wanted
        tokens.release()


def _merged(codes: Codes, counts: Codes, more: Codes) -> tuple[Codes, Codes]:
    """Sorted codes and how often each occurs, with more of them."""
    new, new_counts = np.unique(more, return_counts=True)
    both = np.union1d(codes, new)
    sums = np.zeros(len(both), np.int64)
    sums[np.searchsorted(both, codes)] += counts
    sums[np.searchsorted(both, new)] += new_counts
    return both, sums
