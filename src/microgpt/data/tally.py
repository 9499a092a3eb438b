"""Facts of many documents in little memory: how long they are, and how often a content was there before."""

from __future__ import annotations

import hashlib
import tempfile
from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

I64 = npt.NDArray[np.int64]
PARTS = 64  # files into which the hashes of contents are divided, to be compared a file at a time
BUFFERED = 1 << 18
PIECE = 1 << 20


class Lengths:
    """How often each length occurs: memory grows with the different lengths, not with the documents.

    Args:
        values: lengths to begin with.
    """

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._counts: Counter[int] = Counter(values)

    def add(self, length: int) -> None:
        """Count one more."""
        self._counts[length] += 1

    def add_between(self, starts: I64) -> None:
        """Count the distances between neighbours of an array, a piece at a time."""
        for at in range(0, len(starts) - 1, PIECE):
            found, counts = np.unique(np.diff(np.asarray(starts[at : at + PIECE + 1])), return_counts=True)
            self._counts.update(dict(zip(found.tolist(), counts.tolist())))

    def __len__(self) -> int:
        return self._counts.total()

    def sum(self) -> int:
        """All lengths together."""
        return sum(length * count for length, count in self._counts.items())

    def arrays(self) -> tuple[I64, I64]:
        """(lengths in order, how often each occurs)."""
        items = sorted(self._counts.items())
        return np.array([v for v, _ in items], np.int64), np.array([c for _, c in items], np.int64)

    def percentile(self, percent: float) -> float:
        """The length below which a share lies, between neighbours in proportion, as numpy has it."""
        values, counts = self.arrays()
        last = np.cumsum(counts) - 1  # the place of each length's last one in the order of all
        place = percent / 100 * (len(self) - 1)
        low, high = (float(values[np.searchsorted(last, at)]) for at in (int(place), -int(-place // 1)))
        return low + (high - low) * (place - int(place))


class Contents:
    """Counts contents that were there before, by 64-bit hashes that are kept on disk.

    At 170 million documents two different ones share a hash with a probability of one in a thousand.
    """

    def __init__(self) -> None:
        self._files: list[Any] = []
        self._new = array("Q")

    def add(self, content: str, held_out: bool) -> None:
        """Note a document's content and whether it is held out."""
        digest = hashlib.blake2b(content.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        self._new.append(int.from_bytes(digest, "little") & ~1 | held_out)
        if len(self._new) >= BUFFERED:
            self._spill()

    def _spill(self) -> None:
        if not self._files:
            self._files = [tempfile.TemporaryFile() for _ in range(PARTS)]  # noqa: SIM115 - gone with this object
        hashes = np.frombuffer(self._new, np.uint64)
        parts = hashes >> np.uint64(64 - 6)
        for part, file in enumerate(self._files):
            file.write(hashes[parts == part].tobytes())
        self._new = array("Q")

    def _parts(self) -> Iterable[npt.NDArray[np.uint64]]:
        if not self._files:
            yield np.array(self._new, np.uint64)
            return
        self._spill()
        for file in self._files:
            file.seek(0)
            yield np.frombuffer(file.read(), np.uint64)

    def duplicates(self) -> tuple[int, int]:
        """(documents whose content was there before, contents that stand on both sides of the split)."""
        before = both = 0
        for hashes in self._parts():
            sided = np.unique(hashes)
            different = len(np.unique(sided >> np.uint64(1)))
            before += len(hashes) - different
            both += len(sided) - different
        return before, both
