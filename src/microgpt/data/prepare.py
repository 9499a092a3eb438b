"""From a data config to token shards: fingerprint, scan, split, tokenizer, tokens; done once for each content."""

from __future__ import annotations

import hashlib
import heapq
import json
import sys
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
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
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, END_TURN, Tokenizer
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer

BATCH_CHARACTERS = 1 << 20
#: keys of DataConfig that change the tokens; the others (batch_size, packing, ...) only change their use
CONTENT_KEYS = (
    *("format", "document", "separator", "schema", "chat", "text_field", "split"),
    *("val_fraction", "on_bad_rows", "max_line_mb"),
)


@dataclass
class Split:
    """How documents fall into training and validation, decided by a first pass over them.

    Attributes:
        documents: how many there are.
        val_fraction: documents whose `content_share` lies below this are validation.
        by_position: the corpus is one document, and its last part is validation.
        bad: the rows that could not be used.
        chat: whether there are conversations among the documents.
    """

    documents: int
    val_fraction: float
    by_position: bool
    bad: BadRows
    chat: bool = False

    def is_val(self, document: Document) -> bool:
        """Whether a document is held out; equal contents always fall on the same side."""
        return not self.by_position and content_share(document.content) < self.val_fraction


@dataclass
class _Counts:
    bytes: int = 0
    characters: int = 0

    def add(self, text: str) -> None:
        self.bytes += len(text) if text.isascii() else len(text.encode("utf-8"))
        self.characters += len(text)


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


def fingerprint(
    sources: list[Source],
    data: DataConfig,
    tokenizer: TokenizerConfig,
    given: Tokenizer | None,
    block_size: int | None = None,
) -> str:
    """One hash of everything that the tokens depend on: contents, reading, split and tokenizer."""
    spelled = given.to_json() if given else asdict(tokenizer)
    if not given and tokenizer.kind == "char":
        spelled = {"kind": "char"}
    content: dict[str, Any] = {
        "format": FORMAT_VERSION,
        "sources": [(s.format, s.sha256) for s in sources],
        "data": {key: getattr(data, key) for key in CONTENT_KEYS},
        "tokenizer": spelled,
    }
    # conversations are cut at turn ends to fit the context, so their tokens depend on it
    if data.skip_long or (data.chat and any(s.format != "text" for s in sources)):
        content["fitted"] = (block_size, data.skip_long)
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
    chat = False
    lowest: list[float] = []  # the two smallest shares of different contents, negated
    with (progress or _Progress(0, False)).named("checking") as told:
        for document in read_documents(sources, data, bad, told):
            if document.continues:
                continue
            documents += 1
            chat = chat or bool(document.turns)
            share = content_share(document.content)
            held_out += share < data.val_fraction
            if -share not in lowest:
                heapq.heappush(lowest, -share)
                if len(lowest) > 2:
                    heapq.heappop(lowest)
    if data.on_bad_rows == "fail" or not documents:
        bad.refuse()
    if not documents:
        why = f" ({bad.total:,} bad rows, {bad.dropped:,} conversations without a reply)"
        why = why if bad.total or bad.dropped else ""
        raise DataError(f"{sources[0].path} holds no document{why}", "give a file with text in it")
    if documents == 1:
        if chat:
            raise DataError(f"{sources[0].path} holds a single conversation", "give at least two")
        return Split(1, data.val_fraction, True, bad)
    fraction = data.val_fraction
    if not held_out:  # so few documents that none fell below: the lowest is held out
        if len(lowest) < 2:
            raise DataError(
                "the validation split is empty: all documents have the same content",
                "add different documents",
            )
        fraction = float(np.nextafter(-max(lowest), 1))
    return Split(documents, fraction, False, bad, chat)


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


class _Encoder:
    """Documents to (ids, mask) pieces, a batch at a time.

    Args:
        tokenizer: encodes.
        data: says what happens to long documents.
        block_size: the context that conversations are cut for; None cuts nothing.
    """

    def __init__(self, tokenizer: Tokenizer, data: DataConfig, block_size: int | None) -> None:
        self.tokenizer, self.data, self.block_size = tokenizer, data, block_size
        self.skipped = self.divided = self.cut = 0

    def ids_of(self, batch: list[Document]) -> list[Any]:
        """The ids of every text of a batch, turn by turn."""
        return self.tokenizer.encode_batch(
            [text for d in batch for text in ([t for _, t in d.turns] if d.turns else [d.text])]
        )

    def pieces(self, batch: list[Document], ids: list[Any]) -> Iterator[tuple[Document, list[tuple[Any, Any]]]]:
        """Each document with its pieces; a piece is ids without BOS, and the mask of `SetWriter.add` or None."""
        encoded = iter(ids)
        for document in batch:
            if document.turns:
                yield document, self._conversation([(role, next(encoded)) for role, _ in document.turns])
            else:
                ids = next(encoded)
                long = self.data.skip_long and self.block_size is not None and len(ids) + 1 > self.block_size
                self.skipped += long
                yield document, [] if long else [(ids, None)]

    def _conversation(self, turns: list[tuple[str, Any]]) -> list[tuple[Any, Any]]:
        control = self.tokenizer.control
        spelled: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        for role, ids in turns:
            whole = np.concatenate([[control[f"<{role}>"]], ids, [control[END_TURN]]])
            counts = np.full(len(whole), role == "assistant", np.uint8)
            counts[0] = 0  # the role is given, the reply and its end are to be learned
            spelled.append((role, whole, counts))
        room = self.block_size - 1 if self.block_size else 1 << 62
        if sum(len(ids) for _, ids, _ in spelled) <= room:
            return [self._joined(spelled)]
        if self.data.skip_long:
            self.skipped += 1
            return []
        return self._divided(spelled, room)

    def _divided(self, spelled: list[Any], room: int) -> list[tuple[Any, Any]]:
        """A long conversation as several, each of whole exchanges and with the system turn before it."""
        self.divided += 1
        system = [spelled[0]] if spelled[0][0] == "system" else []
        exchanges: list[list[Any]] = []
        for turn in spelled[len(system) :]:
            if not exchanges or (turn[0] == "user" and exchanges[-1][-1][0] == "assistant"):
                exchanges.append([])
            exchanges[-1].append(turn)
        pieces: list[tuple[Any, Any]] = []
        current: list[Any] = []
        used = taken = sum(len(ids) for _, ids, _ in system)
        for exchange in exchanges:
            size = sum(len(ids) for _, ids, _ in exchange)
            if current and used + size > room:
                pieces.append(self._joined([*system, *current]))
                current, used = [], taken
            current, used = current + exchange, used + size
            if used > room:  # one exchange alone does not fit: its end is lost, and is counted
                self.cut += 1
                ids, mask = self._joined([*system, *current])
                if mask[:room].any():  # a piece with nothing to learn is left out
                    pieces.append((ids[:room], np.append(mask[:room], np.uint8(0))))
                current, used = [], taken
        if current:
            pieces.append(self._joined([*system, *current]))
        return pieces

    def _joined(self, spelled: list[Any]) -> tuple[Any, Any]:
        ids = np.concatenate([ids for _, ids, _ in spelled])
        mask = np.concatenate([*(counts for _, _, counts in spelled), np.zeros(1, np.uint8)])
        return ids, mask


def _encoded_ahead(
    batches: Iterator[list[Document]], encoder: _Encoder
) -> Iterator[tuple[list[Document], list[Any]]]:
    """Each batch with its ids; the next one is encoded, outside of Python's lock, while this one is written."""
    with ThreadPoolExecutor(1) as pool:
        before: tuple[list[Document], Future[list[Any]]] | None = None
        for batch in batches:
            future = pool.submit(encoder.ids_of, batch)
            if before is not None:
                yield before[0], before[1].result()
            before = batch, future
        if before is not None:
            yield before[0], before[1].result()


def _tokenize(
    folder: Path,
    sources: list[Source],
    data: DataConfig,
    split: Split,
    tokenizer: Tokenizer,
    progress: _Progress,
    block_size: int | None,
) -> dict[str, Any]:
    """Write the token sets of both splits and return their counts."""
    dtype = "uint16" if tokenizer.vocab_size <= 65536 else "uint32"
    writers = {name: SetWriter(folder, name, dtype, tokenizer.bos, split.chat) for name in SPLITS}
    counts = {name: _Counts() for name in SPLITS}
    encoder = _Encoder(tokenizer, data, block_size)
    whole: list[np.ndarray[Any, Any]] = []  # the only document, kept until its length is known
    with progress.named("tokenizing") as told:
        for batch, ids in _encoded_ahead(_batches(read_documents(sources, data, BadRows(), told)), encoder):
            plain: dict[str, list[Any]] = {name: [] for name in SPLITS}
            for document, pieces in encoder.pieces(batch, ids):
                if split.by_position:
                    whole.extend(ids.astype(dtype) for ids, _ in pieces)
                    counts["train"].add(document.text)
                    continue
                name = "val" if split.is_val(document) else "train"
                counts[name].add(document.text)
                if not split.chat and data.document != "file":
                    plain[name].extend(ids for ids, _ in pieces)
                    continue
                for ids, mask in pieces:
                    writers[name].add(ids, mask, document.continues)
            for name in SPLITS:
                writers[name].add_all(plain[name])
    if split.by_position:
        ids = np.concatenate(whole) if whole else np.empty(0, dtype)
        cut = len(ids) - int(len(ids) * data.val_fraction)
        if cut == len(ids):
            raise DataError("the validation split is empty", "give more text, or a larger data.val_fraction")
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
        "conversations": {
            "dropped": split.bad.dropped,
            "trimmed_turns": split.bad.trimmed,
            "skipped_long": encoder.skipped,
            "divided": encoder.divided,
            "cut_replies": encoder.cut,
        },
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
    block_size: int | None = None,
) -> tuple[Shards, Tokenizer]:
    """The token shards of a data config, from the cache or made now, and their tokenizer.

    Args:
        data: what is read.
        tokenizer_config: which tokenizer is made from the training documents; its auto vocabulary is filled in.
        given: a tokenizer to use as it is instead (resume).
        show_progress: draw bars on a terminal where the data is large.
        block_size: the context that conversations are fitted to; None leaves them whole.

    Raises:
        DataError: on bad data, see `spec` of each reader.
    """
    sources = find_sources(data)
    size = sum(s.bytes for s in sources) or 1 << 30  # of a hub data set nobody knows: large
    if tokenizer_config.kind != "char":
        tokenizer_config.vocab_size = vocabulary(tokenizer_config.vocab_size, size)
    print_ = fingerprint(sources, data, tokenizer_config, given, block_size)
    folder = files.cache_folder() / "tokens" / print_[:32]
    _clear_leftovers(folder.parent)
    if not (folder / "meta.json").exists():
        try:
            with files.waiting_lock(folder.with_name(f"{folder.name}.lock")):
                if not (folder / "meta.json").exists():  # another process may have made it meanwhile
                    _make(folder, print_, sources, data, tokenizer_config, given, show_progress, block_size)
        except OSError as error:
            raise files.disk_error(error, folder, 0) from error
    shards = open_shards(folder)
    return shards, load_tokenizer(folder / "tokenizer.json")


def _clear_leftovers(cache: Path) -> None:
    """Remove the token sets that killed processes left half made; one that is being made has its lock held."""
    for name in {path.name.split(".")[1] for path in cache.glob(".*.tmp")}:
        with suppress(OSError), files.waiting_lock(cache / f"{name}.lock", wait=False) as ours:
            if ours:
                files.remove_leftovers(cache, name)


def _make(
    folder: Path,
    print_: str,
    sources: list[Source],
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    given: Tokenizer | None,
    show_progress: bool,
    block_size: int | None,
) -> None:
    progress = _Progress(sum(s.bytes for s in sources), show_progress)
    split = scan(sources, data, progress)
    started = time.monotonic()

    def training_texts() -> Iterator[str]:
        with progress.named("learning tokens") as told:
            for document in read_documents(sources, data, BadRows(), told):
                # a character that only validation has needs a token too
                if tokenizer_config.kind == "char" or not split.is_val(document):
                    yield from (text for _, text in document.turns) if document.turns else (document.text,)

    control = (BOS, *CHAT_TOKENS) if split.chat else (BOS,)
    wanted = vocabulary(tokenizer_config.vocab_size, 0)
    tokenizer = given or make_tokenizer(tokenizer_config.kind, wanted, training_texts, control)
    if split.chat and not tokenizer.is_chat:
        tokenizer = tokenizer.grown(CHAT_TOKENS)
    with files.new_folder(folder) as new:
        counts = _tokenize(new, sources, data, split, tokenizer, progress, block_size)
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
