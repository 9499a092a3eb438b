"""From documents to full rows. What stands in any row is a function of (seed, epoch, row) alone.

An epoch is the stream of all positions, its documents in a keyed permutation. It is cut into chunks of fixed
size, and inside a chunk the pieces are arranged into rows so that few documents are cut. Every epoch has the same
number of rows, so that the batch of any step is found without having made the ones before it.
"""

from __future__ import annotations

import bisect
import threading
from array import array
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from microgpt.data.order import I64, hashed, key_of, permuted
from microgpt.data.shards import TokenSet

CHUNK_ROWS = 64
BLOCK = 1024
PIECE = 1 << 20
CHUNKS_KEPT = 4


@dataclass(frozen=True)
class RowBlock:
    """Some rows.

    Attributes:
        index: position in the token stream, int64 [rows, block_size]; -1 is padding.
        positions: place in the piece of the document that the token belongs to, int64 [rows, block_size].
        segments: which piece of the row a token belongs to, int32 [rows, block_size].
    """

    index: I64
    positions: I64
    segments: npt.NDArray[np.int32]


class Units:
    """What is permuted: documents, and of a document longer than a row its windows.

    Windows of a long document are shifted by an offset that is drawn anew each epoch.

    Args:
        tokens: the documents.
        block_size: length of a row.
        packing: windows can be empty, since a piece of no length takes no room; without packing each is a row, so
            that their offsets stay within what the last window leaves free and none is empty.
    """

    def __init__(self, tokens: TokenSet, block_size: int, packing: bool = True) -> None:
        self._starts, self._block, self._packing = tokens.starts, block_size, packing
        # only the long documents are remembered, so that memory does not grow with the short ones
        found: list[tuple[I64, I64]] = []
        for at in range(0, tokens.documents, PIECE):
            lengths = np.diff(tokens.starts[at : at + PIECE + 1])
            long = np.flatnonzero(lengths > block_size)
            found.append((long + at, -(-lengths[long] // block_size) + packing))
            tokens.release()
        self._long = np.concatenate([np.empty(0, np.int64), *(documents for documents, _ in found)])
        self._windows = np.concatenate([np.empty(0, np.int64), *(windows for _, windows in found)])
        self._before = np.cumsum(self._windows - 1) - (self._windows - 1)  # extra units before each
        self.has_windows = bool(len(self._long))
        self.count = tokens.documents + int((self._windows - 1).sum())

    def spans(self, units: I64, key: int | None) -> tuple[I64, I64]:
        """(start, length) of each unit in the token stream; a window can be empty.

        Args:
            units: indexes below `count`.
            key: draws the offsets of windows; None is no offset.
        """
        if not self.has_windows:
            start = self._starts[units]
            return start, self._starts[units + 1] - start
        at = np.searchsorted(self._long + self._before, units, side="right") - 1  # the long document at or before
        near = np.maximum(at, 0)
        window = units - self._long[near] - self._before[near]
        inside = (at >= 0) & (window < self._windows[near])
        extra = np.where(at >= 0, self._before[near] + self._windows[near] - 1, 0)
        documents = np.where(inside, self._long[near], units - extra)
        start, end = self._starts[documents], self._starts[documents + 1]
        window = np.where(inside, window, 0)
        long = inside
        room = np.full_like(start, self._block)
        if not self._packing:
            room = (start - end) % self._block + 1  # what the last window leaves free, and one
        offset = np.zeros_like(start)
        if key is not None:
            offset = (hashed(documents, key) % room.astype(np.uint64)).astype(np.int64)
        if not self._packing:  # counted back from the first full window
            window, offset = window + 1, -offset
        low = np.maximum(start + (window - 1) * self._block + offset, start)
        high = np.minimum(start + window * self._block + offset, end)
        low, high = np.where(long, np.minimum(low, end), start), np.where(long, high, end)
        return low, high - low


def arrange(starts: list[int], lengths: list[int], rows: int, block_size: int) -> tuple[I64, I64]:
    """Pieces in the order in which they fill rows: best fit, cutting one only where none fits.

    Args:
        starts: first position of each piece.
        lengths: length of each piece, `rows * block_size` or less together.
        rows: number of rows.
        block_size: length of a row.

    Returns:
        (starts, lengths) of the pieces, row after row; only the last rows can be left unfilled.
    """
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    sizes = [lengths[i] for i in order]
    where = [starts[i] for i in order]
    out_starts: list[int] = []
    out_lengths: list[int] = []
    for _ in range(rows):
        room = block_size
        while room and sizes:
            at = bisect.bisect_right(sizes, room) - 1
            if at >= 0:
                size, start = sizes.pop(at), where.pop(at)
            else:  # every piece is longer than the room: the longest loses its beginning to it
                longest, start = sizes.pop(), where.pop()
                size = room
                back = bisect.bisect_left(sizes, longest - room)
                sizes.insert(back, longest - room)
                where.insert(back, start + room)
            out_starts.append(start)
            out_lengths.append(size)
            room -= size
    return np.array(out_starts, np.int64), np.array(out_lengths, np.int64)


class Rows:
    """The rows of a token set.

    Args:
        tokens: the documents.
        block_size: length of a row.
        seed: seed of the order; None keeps the documents in theirs (validation).
        packing: fill rows with several documents; False keeps one unit a row.
    """

    def __init__(self, tokens: TokenSet, block_size: int, seed: int | None, packing: bool) -> None:
        self.tokens, self.block_size, self.seed, self.packing = tokens, block_size, seed, packing
        self.units = Units(tokens, block_size, packing)
        total = tokens.positions
        if not packing:
            self.per_epoch = self.units.count
        elif seed is None:
            self.per_epoch = -(-total // block_size)  # validation drops nothing: the last row is padded
        else:
            self.per_epoch = max(1, total // block_size)
        self._totals: OrderedDict[int, array[int]] = OrderedDict()
        self._blocks: OrderedDict[tuple[int, int], tuple[I64, I64]] = OrderedDict()
        self._chunks: OrderedDict[tuple[int, int], RowBlock] = OrderedDict()
        self._lock = threading.Lock()  # batches may be prepared ahead by several threads

    def _key(self, epoch: int, *more: int) -> int:
        return key_of(self.seed or 0, epoch, *more)

    def _units_of(self, first: int, last: int, epoch: int) -> tuple[I64, I64]:
        """Spans of the units at places first..last-1 of an epoch's order."""
        units = np.arange(first, min(last, self.units.count), dtype=np.int64)
        if self.seed is None:
            return self.units.spans(units, None)
        units = permuted(units, self.units.count, self._key(epoch))
        return self.units.spans(units, self._key(epoch, 1))

    def _block(self, epoch: int, block: int) -> tuple[I64, I64]:
        """Spans of a block's units; the next chunk often begins in the block in which one ends."""
        found = self._blocks.get((epoch, block))
        if found is None:
            found = self._blocks[epoch, block] = self._units_of(block * BLOCK, (block + 1) * BLOCK, epoch)
            while len(self._blocks) > CHUNKS_KEPT:
                self._blocks.popitem(last=False)
        return found

    def _totals_to(self, epoch: int, position: int) -> array[int]:
        """Positions before each block of units, as far as `position`."""
        totals = self._totals.setdefault(epoch, array("q", [0]))
        self._totals.move_to_end(epoch)
        while len(self._totals) > 2:
            self._totals.popitem(last=False)
        blocks = -(-self.units.count // BLOCK)
        while totals[-1] <= position and len(totals) <= blocks:
            # permuted documents are read from all over a file: of a large one only so many before it is let go
            step = min(4 if self.tokens.large else 64, blocks + 1 - len(totals))
            first = (len(totals) - 1) * BLOCK
            _, lengths = self._units_of(first, first + step * BLOCK, epoch)
            sums = np.add.reduceat(lengths, np.arange(0, len(lengths), BLOCK))
            totals.extend((totals[-1] + np.cumsum(sums)).tolist())
            self.tokens.release()
        return totals

    def _pieces(self, epoch: int, low: int, high: int) -> tuple[list[int], list[int]]:
        """The pieces of units that make up positions low..high-1 of an epoch's stream."""
        totals = self._totals_to(epoch, high)
        block = bisect.bisect_right(totals, low) - 1
        last = bisect.bisect_left(totals, high)
        blocks = [self._block(epoch, b) for b in range(block, max(block + 1, last))]
        starts, lengths = (np.concatenate([b[i] for b in blocks]) for i in (0, 1))
        ends = totals[block] + np.cumsum(lengths)
        begins = ends - lengths
        cut_front = np.maximum(low - begins, 0)
        starts, lengths = starts + cut_front, np.minimum(ends, high) - begins - cut_front
        kept = lengths > 0
        return starts[kept].tolist(), lengths[kept].tolist()

    def _chunk(self, epoch: int, chunk: int) -> RowBlock:
        found = self._chunks.get((epoch, chunk))
        if found is not None:
            self._chunks.move_to_end((epoch, chunk))
            return found
        first = chunk * CHUNK_ROWS
        rows = min(CHUNK_ROWS, self.per_epoch - first)
        if self.packing:
            low = first * self.block_size
            high = min(low + rows * self.block_size, self.tokens.positions)
            starts, lengths = arrange(*self._pieces(epoch, low, high), rows, self.block_size)
            self.tokens.expect(starts, lengths)
            made = self._laid_out(starts, lengths, rows)
            if self.seed is not None:  # best fit puts long documents first: mix the rows again
                mix = permuted(np.arange(rows, dtype=np.int64), rows, self._key(epoch, 2, chunk))
                made = RowBlock(made.index[mix], made.positions[mix], made.segments[mix])
        else:
            starts, lengths = self._units_of(first, first + rows, epoch)
            lengths = np.minimum(lengths, self.block_size)
            self.tokens.expect(starts, lengths)
            made = self._one_each(starts, lengths)
        self.tokens.release()
        self._chunks[epoch, chunk] = made
        while len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)
        return made

    def _laid_out(self, starts: I64, lengths: I64, rows: int) -> RowBlock:
        """Pieces one after another as rows; what is missing at the end is padding."""
        total = int(lengths.sum())
        before = np.cumsum(lengths) - lengths
        inside = np.arange(total, dtype=np.int64) - np.repeat(before, lengths)
        shape = (rows, self.block_size)
        index = np.full(rows * self.block_size, -1, np.int64)
        index[:total] = np.repeat(starts, lengths) + inside
        positions = np.zeros(rows * self.block_size, np.int64)
        positions[:total] = inside
        segments = np.full(rows * self.block_size, -1, np.int32)
        segments[:total] = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        return RowBlock(index.reshape(shape), positions.reshape(shape), segments.reshape(shape))

    def _one_each(self, starts: I64, lengths: I64) -> RowBlock:
        place = np.arange(self.block_size, dtype=np.int64)[None, :]
        real = place < lengths[:, None]
        index = np.where(real, starts[:, None] + place, -1)
        segments = np.where(real, 0, -1).astype(np.int32)
        return RowBlock(index, np.broadcast_to(place, index.shape).copy(), segments)

    def take(self, first: int, count: int) -> RowBlock:
        """Rows first..first+count-1 of the endless sequence of epochs."""
        parts: list[RowBlock] = []
        row = first
        while row < first + count:
            epoch, place = divmod(row, self.per_epoch)
            chunk, inside = divmod(place, CHUNK_ROWS)
            with self._lock:
                block = self._chunk(epoch, chunk)
            rows = min(len(block.index) - inside, first + count - row)
            part = slice(inside, inside + rows)
            parts.append(RowBlock(block.index[part], block.positions[part], block.segments[part]))
            row += rows
        if len(parts) == 1:
            return parts[0]
        return RowBlock(
            np.concatenate([p.index for p in parts]),
            np.concatenate([p.positions for p in parts]),
            np.concatenate([p.segments for p in parts]),
        )
