"""From a data config to token shards: fingerprint, scan, split, tokenizer, tokens; done once for each content."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.config.auto import vocabulary
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.bar import Passes
from microgpt.data.encode import WHOLE
from microgpt.data.journal import NAME as JOURNAL
from microgpt.data.journal import TOKENIZER, Journal, begun, clear_parts, part_of
from microgpt.data.scan import Split, learning_texts, scan
from microgpt.data.shards import FORMAT_VERSION, SPLITS, Shards, open_shards
from microgpt.data.sources import Source, find_sources
from microgpt.data.tokenizing import Changed, tokenize
from microgpt.errors import DataError
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer

#: bytes from which a set is gone on with after a kill, and made by several processes
LARGE = 32 << 20
#: keys of DataConfig that change the tokens; the others (batch_size, packing, ...) only change their use
CONTENT_KEYS = (
    *("format", "document", "separator", "schema", "chat", "text_field", "split"),
    *("val_fraction", "on_bad_rows", "max_line_mb"),
)


def fingerprint(
    sources: list[Source],
    data: DataConfig,
    tokenizer: TokenizerConfig,
    given: Tokenizer | None,
    block_size: int | None = None,
) -> str:
    """One hash of everything that the tokens depend on: contents, reading, split and tokenizer."""
    spelled = given.to_json() if given else asdict(tokenizer)
    if isinstance(spelled, dict) and corpus_bytes(sources) <= tokenizer.sample_mb * 1e6:
        del spelled["sample_mb"]  # all of it is learned from
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


def corpus_bytes(sources: list[Source]) -> int:
    """The size of all files; of a hub data set nobody knows it: large."""
    return sum(s.bytes for s in sources) or 1 << 30


def data_fingerprint(sources: list[Source]) -> str:
    """One hash of the files' contents alone, for run records and resume."""
    return hashlib.sha256(json.dumps([s.sha256 for s in sources]).encode()).hexdigest()


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
    if tokenizer_config.kind != "char":
        tokenizer_config.vocab_size = vocabulary(tokenizer_config.vocab_size, corpus_bytes(sources))
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
    return shards, load_tokenizer(folder / TOKENIZER)


def _clear_leftovers(cache: Path) -> None:
    """Remove the token sets that killed processes left half made; one that is being made has its lock held."""
    for name in {path.name.split(".")[1] for path in cache.glob(".*.tmp")}:
        with suppress(OSError), files.waiting_lock(cache / f"{name}.lock", wait=False) as ours:
            if ours:
                files.remove_leftovers(cache, name)
    clear_parts(cache)


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
    """Make a set beside its place and give it its name; of a large one a kill leaves what is whole to go on from."""
    passes = Passes(sources, show_progress)
    started = time.monotonic()
    part = part_of(folder)
    files.make_folder(folder.parent)
    large = corpus_bytes(sources) >= LARGE
    try:
        while True:
            before = begun(part)
            if before is None:
                shutil.rmtree(part, ignore_errors=True)
                part.mkdir()
                split = scan(sources, data, passes)
                tokenizer, journal = _tokenizer(sources, data, split, tokenizer_config, given, passes), Journal()
                tokenizer.save(part / TOKENIZER)
                if large:
                    journal.write(part, split)
            else:
                split, tokenizer, journal = before
            try:
                workers = data.tokenize_workers if data.tokenize_workers is not None else min(16, _cores()) * large
                counts = tokenize(part, sources, data, split, tokenizer, journal, passes, block_size, workers)
                break
            except Changed:
                shutil.rmtree(part)
        for name in SPLITS:
            if not counts[name]["documents"]:
                raise DataError(
                    f"the {'validation' if name == 'val' else 'training'} split is empty",
                    "give more documents, or another data.val_fraction",
                )
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
        files.write_json(part / "meta.json", meta)
        files.finish_folder(part, folder)
        for name in (JOURNAL, f"{WHOLE}.tokens", f"{WHOLE}.starts"):  # kept so long that a kill finds them
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise files.disk_error(error, folder, files.folder_bytes(part)) from error
    finally:
        if begun(part) is None:  # what nobody can go on from
            shutil.rmtree(part, ignore_errors=True)


def _tokenizer(
    sources: list[Source],
    data: DataConfig,
    split: Split,
    wanted: TokenizerConfig,
    given: Tokenizer | None,
    passes: Passes,
) -> Tokenizer:
    control = (BOS, *CHAT_TOKENS) if split.chat else (BOS,)
    tokenizer = given or make_tokenizer(
        wanted.kind,
        vocabulary(wanted.vocab_size, 0),
        lambda: learning_texts(sources, data, split, wanted, passes),
        control,
    )
    return tokenizer.grown(CHAT_TOKENS) if split.chat and not tokenizer.is_chat else tokenizer


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
