"""Documents to the files of a token set, a shard of text at a time, from where an earlier start was stopped."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from microgpt.config.schema import DataConfig
from microgpt.data.bar import Passes
from microgpt.data.documents import BadRows, Document, read_documents
from microgpt.data.encode import WHOLE, Encoded, Rules, batches
from microgpt.data.journal import NAME, Journal
from microgpt.data.processes import Here, Processes
from microgpt.data.scan import Split
from microgpt.data.shards import SPLITS, SetWriter
from microgpt.data.sources import Source
from microgpt.errors import DataError
from microgpt.tokenizer.base import Tokenizer

SHARD_BATCHES = 64  # batches of text between two entries of the journal, about 64 MB
COPIED = 1 << 22  # tokens that are copied at a time


class Changed(Exception):
    """The text or the files are others than those which the journal tells of."""


def tokenize(
    folder: Path,
    sources: list[Source],
    data: DataConfig,
    split: Split,
    tokenizer: Tokenizer,
    journal: Journal,
    passes: Passes,
    block_size: int | None,
    workers: int,
) -> dict[str, Any]:
    """Write the token sets of both splits and return their counts.

    Args:
        folder: where the files go, and what the journal tells of stands.
        sources, data, split: what is read and how it is divided.
        tokenizer: its ids are written.
        journal: how far an earlier start came; it is kept in the folder where it stands there.
        passes: the bar.
        block_size: the context that conversations are fitted to.
        workers: processes that encode; 0 does it here. The files are the same for any number.

    Raises:
        DataError: the text cannot be encoded, or leaves nothing to validate on.
        Changed: the text, or what stands in the folder, is not that of the journal.
    """
    dtype = "uint16" if tokenizer.vocab_size <= 65536 else "uint32"
    rules = Rules(split.val_fraction, split.by_position, split.chat, data.skip_long, block_size, dtype)
    writers: dict[str, SetWriter] = {}
    resumable = (folder / NAME).exists()
    try:
        try:
            for name in rules.sets:
                at = journal.sets.get(name, (0, 0))
                writers[name] = SetWriter(folder, name, dtype, tokenizer.bos, split.chat, at)
        except (FileNotFoundError, EOFError):
            raise Changed from None
        encoder = Processes(workers, tokenizer, rules) if workers else Here(tokenizer, rules)
        with passes.named("tokenizing") as told, encoder:
            read = _read(read_documents(sources, data, BadRows(), told), journal)
            for number, digest, encoded in _in_order(read, encoder):
                for name in rules.sets:
                    writers[name].add_all(encoded.spans[name])
                for key, count in encoded.numbers.items():
                    journal.numbers[key] = journal.numbers.get(key, 0) + count
                if resumable and number % SHARD_BATCHES == 0:
                    journal.batches, journal.digest = number, digest
                    journal.sets = {name: writer.sync() for name, writer in writers.items()}
                    journal.write(folder, split)
        if split.by_position:
            writers = _divided(folder, writers[WHOLE], data.val_fraction, tokenizer, dtype, journal.numbers)
        for writer in writers.values():
            writer.close()
    finally:
        for writer in writers.values():
            with suppress(OSError):
                writer.abandon()
    numbers = journal.numbers
    left = ("skipped_long", "divided", "cut_replies")
    return {
        "dtype": dtype,
        "conversations": {
            "dropped": split.bad.dropped,
            "trimmed_turns": split.bad.trimmed,
            **{key: numbers.get(key, 0) for key in left},
        },
        **{
            name: {
                "documents": writers[name].documents,
                "positions": writers[name].positions,
                "bytes": numbers.get(f"{name}.bytes", 0),
                "characters": numbers.get(f"{name}.characters", 0),
            }
            for name in SPLITS
        },
    }


def _read(documents: Iterator[Document], journal: Journal) -> Iterator[tuple[int, str, list[Document]]]:
    """(number from 1, digest of the text up to its end, batch) of the batches that are still to be written."""
    digest = hashlib.blake2b(digest_size=16)
    done, before, number = journal.batches, journal.digest, 0
    for number, batch in enumerate(batches(documents), 1):
        for document in batch:
            digest.update(f"{len(document.text)} ".encode())
            digest.update(document.text.encode("utf-8", "surrogatepass"))
        if number == done and digest.hexdigest() != before:
            raise Changed
        if number > done:
            yield number, digest.hexdigest(), batch
    if number < done:
        raise Changed


def _in_order(
    read: Iterator[tuple[int, str, list[Document]]], encoder: Here | Processes
) -> Iterator[tuple[int, str, Encoded]]:
    """Encoded batches in the order in which they were read; a few are under way at any time."""
    under_way: deque[tuple[int, str, Future[Encoded]]] = deque()
    for number, digest, batch in read:
        under_way.append((number, digest, encoder.submit(batch)))
        if len(under_way) > encoder.ahead:
            first, its_digest, future = under_way.popleft()
            yield first, its_digest, future.result()
    for number, digest, future in under_way:
        yield number, digest, future.result()


def _divided(
    folder: Path, whole: SetWriter, val_fraction: float, tokenizer: Tokenizer, dtype: str, numbers: dict[str, int]
) -> dict[str, SetWriter]:
    """The only document, divided by position: its last part is validation.

    Raises:
        DataError: there is too little of it.
    """
    whole.close()
    length = max(0, whole.positions - 1)  # without its BOS
    cut = length - int(length * val_fraction)
    if cut == length:
        raise DataError("the validation split is empty", "give more text, or a larger data.val_fraction")
    raw = [tokenizer.raw(i) for i in range(tokenizer.vocab_size)]
    size = np.array([len(b) for b in raw], np.int64)
    begins = np.array([sum(byte & 0xC0 != 0x80 for byte in b) for b in raw], np.int64)  # characters that begin here
    writers = {name: SetWriter(folder, name, dtype, tokenizer.bos) for name in SPLITS}
    numbers["val.bytes"] = numbers["val.characters"] = 0
    with open(folder / f"{WHOLE}.tokens", "rb") as file:
        file.seek(np.dtype(dtype).itemsize)
        for name, count in (("train", cut), ("val", length - cut)):
            left = count
            while left:
                ids = np.fromfile(file, dtype, min(left, COPIED))
                writers[name].add(ids, continues=left < count)
                left -= len(ids)
                if name == "val":
                    numbers["val.bytes"] += int(size[ids].sum())
                    numbers["val.characters"] += int(begins[ids].sum())
    for key in ("bytes", "characters"):
        numbers[f"train.{key}"] = numbers[f"{WHOLE}.{key}"] - numbers[f"val.{key}"]
    return writers
