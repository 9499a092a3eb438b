"""Batches by number: the batch of (step, micro-batch, rank) is the same whoever asks, whenever."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from microgpt.data.order import I64
from microgpt.data.rows import RowBlock, Rows
from microgpt.data.shards import TokenSet

IGNORED = -1


@dataclass(frozen=True)
class Batch:
    """Rows ready for the model.

    Attributes:
        inputs: token ids, int64 [rows, block_size]; padding is 0.
        targets: the next token of each, int64 [rows, block_size]; -1 where it does not count.
        positions: place in the document's piece, int64 [rows, block_size].
        segments: pieces of a row, int32 [rows, block_size], or None where every row is one piece.
        index: position in the token stream, int64 [rows, block_size]; -1 is padding.
        part: which data set of a mixture a row comes from, int64 [rows], or None where there is one.
    """

    inputs: I64
    targets: I64
    positions: I64
    segments: npt.NDArray[np.int32] | None
    index: I64
    part: I64 | None = None

    @property
    def target_count(self) -> int:
        """Targets that count towards the loss."""
        return int((self.targets >= 0).sum())


class Batches:
    """The batches of a token set.

    Args:
        tokens: the documents.
        block_size: length of a row.
        batch_size: rows of a batch.
        seed: seed of the order; None for a fixed set in its own order (validation).
        packing: several documents a row.
    """

    def __init__(
        self, tokens: TokenSet, block_size: int, batch_size: int, seed: int | None, packing: bool = True
    ) -> None:
        self.rows = Rows(tokens, block_size, seed, packing)
        self.batch_size = batch_size
        self.tokens = tokens
        # Windows of one document need no wall between them: it does not see another document.
        self.segmented = packing and tokens.documents > 1

    @property
    def per_epoch(self) -> int:
        """Batches that cover the set once; the last can be short where the order is fixed."""
        return -(-self.rows.per_epoch // self.batch_size)

    def micro_batch(self, step: int, micro: int = 0, accumulate: int = 1, rank: int = 0, world: int = 1) -> Batch:
        """The rows of a rank for one micro-batch of a step."""
        number = ((step * accumulate + micro) * world + rank) * self.batch_size
        return self._batch(self.rows.take(number, self.batch_size))

    def rows_from(self, first: int, count: int, part: int) -> Batch:
        """Some rows of the endless sequence, as a part of a mixture."""
        made = self._batch(self.rows.take(first, count))
        return replace(made, part=np.full(count, part, np.int64))

    def documents_of(self, batch: Batch) -> list[str]:
        """Names of the documents in a batch, for messages."""
        return [str(d) for d in document_ids(self.tokens, batch.index)]

    def fixed(self, number: int) -> Batch:
        """Batch `number` of one pass over the set; the last one is filled up with ignored rows."""
        first = number * self.batch_size
        count = min(self.batch_size, self.rows.per_epoch - first)
        batch = self._batch(self.rows.take(first, count))
        missing = self.batch_size - count
        if not missing:
            return batch

        def filled(values: npt.NDArray[np.int64], with_: int) -> I64:
            return np.concatenate([values, np.full((missing, values.shape[1]), with_, values.dtype)])

        segments = None if batch.segments is None else filled(batch.segments.astype(np.int64), -1).astype(np.int32)
        return Batch(
            filled(batch.inputs, 0), filled(batch.targets, IGNORED), filled(batch.positions, 0), segments,
            filled(batch.index, -1),
        )  # fmt: skip

    def _batch(self, block: RowBlock) -> Batch:
        real = block.index >= 0
        place = np.where(real, block.index, 0)
        inputs = self.tokens.tokens[place].astype(np.int64)
        targets = self.tokens.tokens[place + 1].astype(np.int64)
        counts = real
        if self.tokens.mask is not None:
            counts = real & (self.tokens.mask[place + 1] > 0)
        if not real.all():
            inputs = np.where(real, inputs, 0)
        if not counts.all():
            targets = np.where(counts, targets, IGNORED)
        return Batch(inputs, targets, block.positions, block.segments if self.segmented else None, block.index)


class Ahead:
    """Prepares the batches of coming steps in threads; they are the same as without.

    Args:
        make: the batches of a step.
        threads: how many steps are prepared at a time; 0 prepares nothing ahead.
    """

    def __init__(self, make: Callable[[int], list[Batch]], threads: int) -> None:
        self._make, self._threads = make, threads
        self._pool = ThreadPoolExecutor(threads) if threads else None
        self._coming: dict[int, Future[list[Batch]]] = {}

    def take(self, step: int) -> list[Batch]:
        """The batches of a step; those of the next ones are begun."""
        if self._pool is None:
            return self._make(step)
        coming = self._coming.pop(step, None)
        for ahead in range(step + 1, step + 1 + self._threads):
            if ahead not in self._coming:
                self._coming[ahead] = self._pool.submit(self._make, ahead)
        return self._make(step) if coming is None else coming.result()

    def forget(self) -> None:
        """Drop what was prepared: batches are made in another size from now on."""
        self._coming.clear()


def document_ids(tokens: TokenSet, index: I64) -> list[int]:
    """The documents that positions of the token stream belong to; -1 belongs to none."""
    places = index[index >= 0]
    return np.unique(np.searchsorted(tokens.starts, places, side="right") - 1).tolist()
