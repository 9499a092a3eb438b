"""From a data config to token shards: fingerprint, scan, split, tokenizer, tokens; done once for each content."""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from microgpt import files
from microgpt.config.auto import vocabulary
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.documents import BadRows, Document, read_documents
from microgpt.data.order import content_share
from microgpt.data.shards import FORMAT_VERSION, SPLITS, SetWriter, Shards, open_shards
from microgpt.data.sources import Source, find_sources
from microgpt.errors import DataError
from microgpt.tokenizer.base import BOS, Tokenizer
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer

BATCH_CHARACTERS = 1 << 21
#: keys of DataConfig that change the tokens; the others (batch_size, packing, ...) only change their use
CONTENT_KEYS = (
    "format",
    "document",
    "separator",
    "text_field",
    "split",
    "val_fraction",
    "on_bad_rows",
    "max_line_mb",
)


@dataclass
class Split:
    """How documents fall into training and validation, decided by a first pass over them.

    Attributes:
        documents: how many there are.
        val_fraction: documents whose `content_share` lies below this are validation.
        by_position: the corpus is one document, and its last part is validation.
        bad: the rows that could not be used.
    """

    documents: int
    val_fraction: float
    by_position: bool
    bad: BadRows

    def is_val(self, document: Document) -> bool:
        """Whether a document is held out; equal contents always fall on the same side."""
        return not self.by_position and content_share(document.content) < self.val_fraction


@dataclass
class _Counts:
    bytes: int = 0
    characters: int = 0
    sizes: dict[str, int] = field(default_factory=dict)


class _Progress:
    """A bar on standard error for the passes over large files; small ones take no time and show none."""

    def __init__(self, total: int, shown: bool) -> None:
        self._total, self._shown = total, shown and total > 3_000_000 and sys.stderr.isatty()

    @contextmanager
    def named(self, name: str) -> Generator[Any]:
        if not self._shown:
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (TextColumn(name), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=self._total)

            def told(count: int) -> None:
                bar.update(task, advance=count)

            yield told


def fingerprint(sources: list[Source], data: DataConfig, tokenizer: TokenizerConfig, given: Tokenizer | None) -> str:
    """One hash of everything that the tokens depend on: contents, reading, split and tokenizer."""
    spelled = given.to_json() if given else asdict(tokenizer)
    if not given and tokenizer.kind == "char":
        spelled = {"kind": "char"}
    content = {
        "format": FORMAT_VERSION,
        "sources": [(s.format, s.sha256) for s in sources],
        "data": {key: getattr(data, key) for key in CONTENT_KEYS},
        "tokenizer": spelled,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def data_fingerprint(sources: list[Source]) -> str:
    """One hash of the files' contents alone, for run records and resume."""
    return hashlib.sha256(json.dumps([s.sha256 for s in sources]).encode()).hexdigest()


def scan(sources: list[Source], data: DataConfig, progress: _Progress | None = None) -> Split:
    """Read every document once: find all bad rows, and decide how the split falls.

    Raises:
        DataError: bad rows and `on_bad_rows=fail`, no document at all, or none left to validate on.
    """
    bad = BadRows()
    documents = held_out = 0
    lowest: list[float] = []  # the two smallest shares of different contents, negated
    with (progress or _Progress(0, False)).named("checking") as told:
        for document in read_documents(sources, data, bad, told):
            if document.continues:
                continue
            documents += 1
            share = content_share(document.content)
            held_out += share < data.val_fraction
            if -share not in lowest:
                heapq.heappush(lowest, -share)
                if len(lowest) > 2:
                    heapq.heappop(lowest)
    if data.on_bad_rows == "fail":
        bad.refuse()
    if not documents:
        why = f" ({bad.total:,} bad rows)" if bad.total else ""
        raise DataError(f"{sources[0].path} holds no document{why}", "give a file with text in it")
    if documents == 1:
        return Split(1, data.val_fraction, True, bad)
    fraction = data.val_fraction
    if not held_out:  # so few documents that none fell below: the lowest is held out
        if len(lowest) < 2:
            raise DataError(
                "the validation split is empty: all documents have the same content",
                "add different documents",
            )
        fraction = float(np.nextafter(-max(lowest), 1))
    return Split(documents, fraction, False, bad)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in groups of about 2 M characters, as `encode_batch` is fastest on many at once."""
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document.text)
        if size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _tokenize(
    folder: Path,
    sources: list[Source],
    data: DataConfig,
    split: Split,
    tokenizer: Tokenizer,
    progress: _Progress,
) -> dict[str, Any]:
    """Write the token sets of both splits and return their counts."""
    dtype = "uint16" if tokenizer.vocab_size <= 65536 else "uint32"
    writers = {name: SetWriter(folder, name, dtype, tokenizer.bos) for name in SPLITS}
    counts = {name: _Counts() for name in SPLITS}
    whole: list[np.ndarray[Any, Any]] = []  # the only document, kept until its length is known
    with progress.named("tokenizing") as told:
        for batch in _batches(read_documents(sources, data, BadRows(), told)):
            for document, ids in zip(batch, tokenizer.encode_batch([d.text for d in batch])):
                if split.by_position:
                    whole.append(ids.astype(dtype))
                    counts["train"].characters += len(document.text)
                    counts["train"].bytes += len(document.text.encode("utf-8"))
                    continue
                name = "val" if split.is_val(document) else "train"
                writers[name].add(ids, continues=document.continues)
                counts[name].characters += len(document.text)
                counts[name].bytes += len(document.text.encode("utf-8"))
    if split.by_position:
        ids = np.concatenate(whole)
        cut = len(ids) - int(len(ids) * data.val_fraction)
        writers["train"].add(ids[:cut])
        writers["val"].add(ids[cut:])
        total = counts["train"]
        last = tokenizer.decode(ids[cut:].tolist())
        counts["val"] = _Counts(len(last.encode("utf-8")), len(last))
        counts["train"] = _Counts(total.bytes - counts["val"].bytes, total.characters - counts["val"].characters)
    for writer in writers.values():
        writer.close()
    return {
        "dtype": dtype,
        **{
            name: {
                "documents": writers[name].documents,
                "positions": writers[name].positions,
                "bytes": counts[name].bytes,
                "characters": counts[name].characters,
            }
            for name in SPLITS
        },
    }


def prepare(
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    given: Tokenizer | None = None,
    show_progress: bool = True,
) -> tuple[Shards, Tokenizer]:
    """The token shards of a data config, from the cache or made now, and their tokenizer.

    Args:
        data: what is read.
        tokenizer_config: which tokenizer is made from the training documents; its auto vocabulary is filled in.
        given: a tokenizer to use as it is instead (resume).
        show_progress: draw bars on a terminal where the data is large.

    Raises:
        DataError: on bad data, see `spec` of each reader.
    """
    sources = find_sources(data)
    size = sum(s.bytes for s in sources) or 1 << 30  # of a hub data set nobody knows: large
    if tokenizer_config.kind != "char":
        tokenizer_config.vocab_size = vocabulary(tokenizer_config.vocab_size, size)
    print_ = fingerprint(sources, data, tokenizer_config, given)
    folder = files.cache_folder() / "tokens" / print_[:32]
    if not (folder / "meta.json").exists():
        try:
            with files.waiting_lock(folder.with_name(f"{folder.name}.lock")):
                if not (folder / "meta.json").exists():  # another process may have made it meanwhile
                    _make(folder, print_, sources, data, tokenizer_config, given, show_progress)
        except OSError as error:
            raise files.disk_error(error, folder, 0) from error
    shards = open_shards(folder)
    return shards, load_tokenizer(folder / "tokenizer.json")


def _make(
    folder: Path,
    print_: str,
    sources: list[Source],
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    given: Tokenizer | None,
    show_progress: bool,
) -> None:
    progress = _Progress(sum(s.bytes for s in sources), show_progress)
    split = scan(sources, data, progress)
    started = time.monotonic()

    def training_texts() -> Iterator[str]:
        with progress.named("learning tokens") as told:
            for document in read_documents(sources, data, BadRows(), told):
                # a character that only validation has needs a token too
                if tokenizer_config.kind == "char" or not split.is_val(document):
                    yield document.text

    wanted = vocabulary(tokenizer_config.vocab_size, 0)
    tokenizer = given or make_tokenizer(tokenizer_config.kind, wanted, training_texts, (BOS,))
    with files.new_folder(folder) as new:
        counts = _tokenize(new, sources, data, split, tokenizer, progress)
        for name in SPLITS:
            if not counts[name]["documents"]:
                raise DataError(
                    f"the {'validation' if name == 'val' else 'training'} split is empty",
                    "give more documents, or another data.val_fraction",
                )
        tokenizer.save(new / "tokenizer.json")
        meta = {
            "fingerprint": print_,
            "data_fingerprint": data_fingerprint(sources),
            "sources": [asdict(s) for s in sources],
            "by_position": split.by_position,
            "bad_rows": split.bad.counts,
            "vocab_size": tokenizer.vocab_size,
            "seconds": round(time.monotonic() - started, 3),
            **counts,
        }
        files.write_json(new / "meta.json", meta)
