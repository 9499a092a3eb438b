"""Keyed randomness that needs no state: hashes and permutations that are functions of their key alone."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I64 = npt.NDArray[np.int64]
GOLDEN = 0x9E3779B97F4A7C15
ROUNDS = 4


def mixed(values: U64) -> U64:
    """A 64-bit finaliser (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number generators")."""
    z = values + np.uint64(GOLDEN)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def key_of(*parts: int) -> int:
    """One 64-bit key from several whole numbers."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def permuted(index: I64, size: int, key: int) -> I64:
    """Where a keyed permutation of 0..size-1 sends each index.

    A Feistel network over the next even power of two, walked until it lands inside (Black and Rogaway 2002,
    "Ciphers with arbitrary finite domains"): any part of the permutation is had without the rest, so that the
    order of ten million documents takes no memory.

    Args:
        index: whole numbers below `size`, any shape.
        size: length of the permutation.
        key: 64-bit key; another key gives another order.
    """
    half = max(1, ((max(1, size - 1)).bit_length() + 1) // 2)
    mask = np.uint64((1 << half) - 1)
    keys = [np.uint64(key_of(key, r)) for r in range(ROUNDS)]
    values = index.astype(np.uint64).ravel()
    todo = np.arange(values.size)
    with np.errstate(over="ignore"):
        while todo.size:
            left, right = values[todo] >> np.uint64(half), values[todo] & mask
            for round_key in keys:
                left, right = right, left ^ (mixed(right ^ round_key) & mask)
            values[todo] = (left << np.uint64(half)) | right
            todo = todo[values[todo] >= size]
    return values.astype(np.int64).reshape(index.shape)


def hashed(index: I64, key: int) -> U64:
    """A 64-bit hash of each index under a key."""
    with np.errstate(over="ignore"):
        return mixed(index.astype(np.uint64) ^ np.uint64(key))


_SPLIT_HASH = hashlib.blake2b(digest_size=8, person=b"microgpt-split")


def content_share(content: str) -> float:
    """A number in [0, 1) from a document's content alone: equal documents get equal numbers."""
    digest = _SPLIT_HASH.copy()  # half the time of making a new one, and this runs for every document
    digest.update(content.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "little") / 2**64
