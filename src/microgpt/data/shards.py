"""Token shards: what training reads. Memory-mapped, named by a fingerprint of everything that made them.

A set is one stream `BOS a b c BOS d e BOS`: a document's positions are its own BOS and its tokens, and the
target of its last position is the BOS that follows, whoever that belongs to. So a document of n tokens has n + 1
positions, each with a target, and BOS stands on both of its ends as prior art has it.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from microgpt import files
from microgpt.errors import DataError

FORMAT_VERSION = 1
SPLITS = ("train", "val")
KEPT_BYTES = 64 << 20  # files up to here stay in memory where they were read
Tokens = npt.NDArray[Any]


@dataclass(frozen=True)
class TokenSet:
    """One split, mapped from disk.

    Attributes:
        tokens: the stream, shape [positions + 1], uint16 or uint32.
        starts: first position of each document, shape [documents + 1]; the last is the number of positions.
        mask: 1 where a token counts as a target, shape [positions + 1], or None where all do.
        maps: the files that these are mapped from.
    """

    tokens: Tokens
    starts: npt.NDArray[np.int64]
    mask: npt.NDArray[np.uint8] | None
    maps: tuple[mmap.mmap, ...] = ()

    @property
    def large(self) -> bool:
        """Whether what has been read of the files should not stay in this process's memory."""
        return sum(map(len, self.maps)) > KEPT_BYTES

    def release(self) -> None:
        """Give back the pages of large files that were read; the system keeps them as long as it has room."""
        if self.large and hasattr(mmap, "MADV_DONTNEED"):
            for entry in self.maps:
                entry.madvise(mmap.MADV_DONTNEED)

    def expect(self, starts: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> None:
        """Have the system read pieces of large files that it no longer holds, all at once, while training goes on.

        Args:
            starts, lengths: positions of the pieces, shape [pieces].
        """
        if not (self.large and hasattr(mmap, "MADV_WILLNEED")):
            return
        for entry, values in zip(self.maps[1:], (self.tokens, self.mask)):
            if values is not None:
                first = starts * values.itemsize // mmap.PAGESIZE * mmap.PAGESIZE
                behind = (starts + lengths + 1) * values.itemsize  # the last position's target stands behind it
                for at, size in zip(first.tolist(), (behind - first).tolist()):
                    entry.madvise(mmap.MADV_WILLNEED, at, size)

    @property
    def documents(self) -> int:
        """Number of documents."""
        return len(self.starts) - 1

    @property
    def positions(self) -> int:
        """Number of positions, which is the number of targets where there is no mask."""
        return int(self.starts[-1])

    def document(self, index: int) -> Tokens:
        """The tokens of a document without its BOS, shape [n]."""
        return self.tokens[int(self.starts[index]) + 1 : int(self.starts[index + 1])]


@dataclass(frozen=True)
class Span:
    """Documents that follow each other, as they stand in a set's files.

    Attributes:
        tokens: the stream without a closing BOS, shape [positions].
        starts: first position of each document that begins here, from the span's own beginning, shape [documents].
        mask: which token after each position counts as a target, uint8 [positions], or None where all do.
    """

    tokens: Tokens
    starts: npt.NDArray[np.int64]
    mask: npt.NDArray[np.uint8] | None


class SetWriter:
    """Appends documents to one split's files. Closed, the set can be opened by `open_set`.

    Args:
        folder: where the files go.
        split: `train` or `val`.
        dtype: of the tokens.
        bos: id that stands before every document.
        masked: whether a loss mask is written beside the tokens.
        at: (documents, positions) that are kept of what stands there; what follows them is cut off.

    Raises:
        FileNotFoundError, EOFError: a file that is to be gone on with is missing or too short.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        dtype: npt.DTypeLike,
        bos: int,
        masked: bool = False,
        at: tuple[int, int] = (0, 0),
    ) -> None:
        self._dtype, self._bos = np.dtype(dtype), bos
        self.documents, self.positions = at
        tokens, starts = self.positions * self._dtype.itemsize, self.documents * 8
        self._tokens: BinaryIO = _opened(folder / f"{split}.tokens", tokens)
        self._starts: BinaryIO = _opened(folder / f"{split}.starts", starts)
        mask = self.positions + 1 if self.documents else 0
        self._mask: BinaryIO | None = _opened(folder / f"{split}.mask", mask) if masked else None

    def add(self, ids: Tokens, mask: Tokens | None = None, continues: bool = False) -> None:
        """Write a document's ids (without BOS), or more ids of the document before.

        Args:
            ids: shape [n].
            mask: which of the ids count as targets, shape [n + 1] with the closing BOS last.
            continues: the ids belong to the document before.
        """
        if not continues:
            self._starts.write(np.int64(self.positions).tobytes())
            self._tokens.write(self._dtype.type(self._bos).tobytes())
            self.positions += 1
            self.documents += 1
        self._tokens.write(np.asarray(ids).astype(self._dtype).tobytes())
        if self._mask is not None:
            if continues:
                self._mask.seek(-1, os.SEEK_CUR)  # what stood for the closing BOS is this piece's first token
            if self.documents == 1 and not continues:
                self._mask.write(b"\x00")  # the stream's first BOS is nobody's target
            given = np.ones(len(ids) + 1, np.uint8) if mask is None else np.asarray(mask, np.uint8)
            self._mask.write(given.tobytes())
        self.positions += len(ids)

    def add_all(self, span: Span) -> None:
        """Write many documents at once."""
        self._starts.write((span.starts + self.positions).tobytes())
        self._tokens.write(span.tokens.tobytes())
        if self._mask is not None and span.mask is not None:
            if not self.documents and len(span.starts):
                self._mask.write(b"\x00")
            self._mask.write(span.mask.tobytes())
        self.positions += len(span.tokens)
        self.documents += len(span.starts)

    def sync(self) -> tuple[int, int]:
        """Bring all that was added to the disk; (documents, positions) to go on from."""
        for file in self._files():
            file.flush()
            os.fsync(file.fileno())
        return self.documents, self.positions

    def close(self) -> None:
        """Write the closing BOS and finish the files."""
        self._starts.write(np.int64(self.positions).tobytes())
        self._tokens.write(self._dtype.type(self._bos).tobytes())
        self.abandon()

    def abandon(self) -> None:
        """Close the files as they are."""
        for file in self._files():
            file.close()

    def _files(self) -> list[BinaryIO]:
        return [file for file in (self._tokens, self._starts, self._mask) if file is not None]


def _opened(path: Path, kept: int) -> BinaryIO:
    """A file to append to, cut to the bytes that are kept."""
    if not kept:
        return open(path, "wb")
    file = open(path, "r+b")  # noqa: SIM115 - closed by close()
    if file.seek(0, os.SEEK_END) < kept:
        file.close()
        raise EOFError
    file.truncate(kept)
    file.seek(kept)
    return file


def open_set(folder: Path, split: str, dtype: npt.DTypeLike) -> TokenSet:
    """Map one split of a shard folder.

    Raises:
        DataError: the files do not fit each other.
    """
    mask_path = folder / f"{split}.mask"
    paths = [folder / f"{split}.starts", folder / f"{split}.tokens", *([mask_path] if mask_path.exists() else [])]
    maps = tuple(map(_mapped, paths))
    starts, tokens = np.frombuffer(maps[0], np.int64), np.frombuffer(maps[1], np.dtype(dtype))
    mask = np.frombuffer(maps[2], np.uint8) if len(maps) > 2 else None
    if len(tokens) != int(starts[-1]) + 1 or (mask is not None and len(mask) != len(tokens)):
        raise DataError(f"the token cache {folder} is damaged", "remove the folder; it is made again")
    return TokenSet(tokens, starts, mask, maps)


def _mapped(path: Path) -> mmap.mmap:
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True)
class Shards:
    """A tokenized corpus.

    Attributes:
        folder: where it lies.
        fingerprint: what it was made from, as one hash.
        meta: counts (documents, positions, bytes, characters a split), sources, dtype.
    """

    folder: Path
    fingerprint: str
    meta: dict[str, Any]
    train: TokenSet
    val: TokenSet


def open_shards(folder: Path) -> Shards:
    """Open a shard folder that `prepare` wrote.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        meta: dict[str, Any] = files.read_json(folder / "meta.json")
        train, val = (open_set(folder, split, meta["dtype"]) for split in SPLITS)
        return Shards(folder, str(meta["fingerprint"]), meta, train, val)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"the token cache {folder} is damaged ({error})", "remove the folder; it is made again"
        ) from None
