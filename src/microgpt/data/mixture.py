"""All data of a run: one data set, or several mixed by weight, with one tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from microgpt import files
from microgpt.config.auto import vocabulary
from microgpt.config.build import nearest
from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.bar import Passes
from microgpt.data.batches import Batch, Batches, document_ids
from microgpt.data.order import key_of, permuted
from microgpt.data.prepare import corpus_bytes, data_fingerprint, prepare
from microgpt.data.scan import learning_texts, scan
from microgpt.data.shards import Shards, TokenSet
from microgpt.data.sources import CORPORA, find_sources
from microgpt.errors import DataError, UsageError
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer

BLOCK = 256


class MixedBatches:
    """Batches whose rows come from several data sets in fixed shares.

    Every 256 rows hold each set's share exactly, in an order that is a function of the seed alone, so that the batch
    of any step is found without the ones before it.

    Args:
        parts: a source of rows for each set, all with the same batch_size.
        weights: share of each, any scale.
        seed: seed of the order.
    """

    def __init__(self, parts: list[Batches], weights: list[float], seed: int) -> None:
        self.parts, self.seed, self.batch_size = parts, seed, parts[0].batch_size
        wanted = np.array(weights) / sum(weights) * BLOCK
        quota = np.maximum(1, np.floor(wanted)).astype(np.int64)
        while quota.sum() < BLOCK:  # largest remainder
            quota[np.argmax(wanted - quota)] += 1
        while quota.sum() > BLOCK:
            quota[np.argmax(quota)] -= 1
        self.quota = quota

    def _slots(self, block: int) -> np.ndarray[Any, Any]:
        """Which set each row of a block comes from."""
        order = permuted(np.arange(BLOCK, dtype=np.int64), BLOCK, key_of(self.seed, block, 3))
        return np.repeat(np.arange(len(self.quota)), self.quota)[order]

    def micro_batch(self, step: int, micro: int = 0, accumulate: int = 1, rank: int = 0, world: int = 1) -> Batch:
        """The rows of a rank for one micro-batch of a step."""
        first = ((step * accumulate + micro) * world + rank) * self.batch_size
        rows = np.arange(first, first + self.batch_size)
        blocks = range(first // BLOCK, int(rows[-1]) // BLOCK + 1)
        slots = np.concatenate([self._slots(b) for b in blocks])
        offset = first - blocks[0] * BLOCK
        chosen = slots[offset : offset + self.batch_size]
        taken: list[Batch] = []
        where: list[np.ndarray[Any, Any]] = []
        for part, batches in enumerate(self.parts):
            at = np.flatnonzero(chosen == part)
            if len(at):
                start = blocks[0] * int(self.quota[part]) + int((slots[:offset] == part).sum())
                taken.append(batches.rows_from(start, len(at), part))
                where.append(at)
        order = np.argsort(np.concatenate(where))
        segments = [
            np.where(b.index >= 0, 0, -1).astype(np.int32) if b.segments is None else b.segments for b in taken
        ]
        return Batch(
            np.concatenate([b.inputs for b in taken])[order],
            np.concatenate([b.targets for b in taken])[order],
            np.concatenate([b.positions for b in taken])[order],
            np.concatenate(segments)[order],
            np.concatenate([b.index for b in taken])[order],
            np.concatenate([np.full(len(at), b.part[0]) for b, at in zip(taken, where) if b.part is not None])[order],
        )

    def documents_of(self, batch: Batch) -> list[str]:
        """Names of the documents in a batch, for messages: `set:document`."""
        names: list[str] = []
        for part, batches in enumerate(self.parts):
            rows = batch.index[batch.part == part]
            names += [f"{part}:{d}" for d in document_ids(batches.tokens, rows)]
        return names


@dataclass(frozen=True)
class Prepared:
    """The data of a run, tokenized.

    Attributes:
        parts: the token shards of each data set.
        weights: the share of each in training.
        tokenizer: of all.
    """

    parts: list[Shards]
    weights: list[float]
    tokenizer: Tokenizer

    @property
    def fingerprint(self) -> str:
        """One hash of the contents of all files, in the order given."""
        return _joined([str(p.meta["data_fingerprint"]) for p in self.parts])

    @property
    def tokens_fingerprint(self) -> str:
        """One hash of everything that the tokens were made from."""
        return _joined([p.fingerprint for p in self.parts])

    @property
    def facts(self) -> dict[str, Any]:
        """What a run's record says of its data."""
        sources = [
            {k: s[k] for k in ("path", "format", "sha256", "bytes")} for p in self.parts for s in p.meta["sources"]
        ]
        facts: dict[str, Any] = {
            "fingerprint": self.fingerprint,
            "tokens_fingerprint": self.tokens_fingerprint,
            "sources": sources,
            "conversations": _summed([p.meta["conversations"] for p in self.parts]),
            "bad_rows": _summed([p.meta["bad_rows"] for p in self.parts]),
        }
        for split in ("train", "val"):
            facts[split] = _summed([p.meta[split] for p in self.parts])
        if len(self.parts) > 1:
            facts["weights"] = self.weights
        return facts

    def train_batches(self, data: DataConfig, block_size: int, batch_size: int, seed: int) -> Batches | MixedBatches:
        """Where training batches come from."""
        sets = [_masked(p.train, data) for p in self.parts]
        if len(sets) == 1:
            return Batches(sets[0], block_size, batch_size, seed, data.packing)
        parts = [Batches(s, block_size, batch_size, key_of(seed, i), data.packing) for i, s in enumerate(sets)]
        return MixedBatches(parts, self.weights, seed)

    def val_batches(self, data: DataConfig, block_size: int, batch_size: int) -> list[Batches]:
        """The fixed validation set, of each data set its own."""
        sets = [_masked(p.val, data) for p in self.parts]
        return [Batches(s, block_size, batch_size, None, data.packing) for s in sets]


def _joined(prints: list[str]) -> str:
    """One fingerprint of several; of one it is that one."""
    return prints[0] if len(prints) == 1 else hashlib.sha256(json.dumps(prints).encode()).hexdigest()


def content_fingerprint(data: DataConfig) -> str:
    """`Prepared.fingerprint` of a data config, from its files alone.

    Raises:
        DataError: a file is missing.
    """
    configs = mixture_parts(data)[0] if data.mixture else [data]
    return _joined([data_fingerprint(find_sources(c)) for c in configs])


def _masked(tokens: TokenSet, data: DataConfig) -> TokenSet:
    """A token set with its loss mask, or without where everything counts."""
    return tokens if data.loss_on == "assistant" else replace(tokens, mask=None)


def _summed(dicts: list[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for entry in dicts:
        for key, value in entry.items():
            total[key] = total.get(key, 0) + value
    return total


def mixture_parts(data: DataConfig) -> tuple[list[DataConfig], list[float]]:
    """A data config for each entry of `data.mixture`, and their weights.

    Raises:
        UsageError: an entry is not name:weight, or names nothing.
    """
    configs: list[DataConfig] = []
    weights: list[float] = []
    for entry in data.mixture:
        name, colon, text = entry.rpartition(":")
        try:
            weight = float(text)
        except ValueError:
            weight = 0.0
        if not colon or not 0 < weight < 1e9:
            raise UsageError(
                f"data.mixture: {entry!r} is not name:weight", "for example data.mixture=[tales:0.7,my.jsonl:0.3]"
            )
        if name in CORPORA:
            document = "file" if name == "shakespeare" else data.document
            configs.append(replace(data, path=[], corpus=name, document=document, mixture=[], format="auto"))
        elif Path(name).exists():
            configs.append(replace(data, path=[name], mixture=[], format="auto"))
        else:
            raise UsageError(
                f"data.mixture: there is no {name}{nearest(name, CORPORA)}",
                f"give a path or one of {', '.join(CORPORA)}",
            )
        weights.append(weight)
    return configs, weights


def prepare_all(
    data: DataConfig,
    tokenizer_config: TokenizerConfig,
    given: Tokenizer | None = None,
    show_progress: bool = True,
    block_size: int | None = None,
) -> Prepared:
    """The data of a run, tokenized: `prepare` for one data set or for each of a mixture.

    A given tokenizer without the control tokens of conversations gets them where there are conversations.

    Raises:
        DataError, UsageError: as `prepare`.
    """
    if not data.mixture:
        shards, tokenizer = prepare(data, tokenizer_config, given, show_progress, block_size)
        return Prepared([shards], [1.0], tokenizer)
    configs, weights = mixture_parts(data)
    tokenizer = _common_tokenizer(configs, tokenizer_config, given)
    parts = [prepare(c, tokenizer_config, tokenizer, show_progress, block_size)[0] for c in configs]
    return Prepared(parts, weights, tokenizer)


def _common_tokenizer(configs: list[DataConfig], wanted: TokenizerConfig, given: Tokenizer | None) -> Tokenizer:
    """One tokenizer for all data sets of a mixture, cached by their contents."""
    sources = [find_sources(c) for c in configs]
    splits = [scan(s, c) for s, c in zip(sources, configs)]
    control = (BOS, *CHAT_TOKENS) if any(s.chat for s in splits) else (BOS,)
    if given is not None:
        return given.grown(control) if any(c not in given.control for c in control) else given
    size = sum(s.bytes for part in sources for s in part) or 1 << 30
    if wanted.kind != "char":
        wanted.vocab_size = vocabulary(wanted.vocab_size, size)

    def texts() -> Iterator[str]:
        for part, config, split in zip(sources, configs, splits):
            yield from learning_texts(part, config, split, wanted, Passes(part, False))

    key = [[s.sha256 for s in part] for part in sources], wanted.kind, wanted.vocab_size, control, repr(configs)
    if any(corpus_bytes(part) > wanted.sample_mb * 1e6 for part in sources):
        key = *key, wanted.sample_mb
    name = hashlib.sha256(repr(key).encode()).hexdigest()[:32]
    path = files.cache_folder() / "tokenizers" / f"{name}.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        make_tokenizer(wanted.kind, vocabulary(wanted.vocab_size, 0), texts, control).save(path)
    tokenizer = load_tokenizer(path)
    if not tokenizer.vocab_size:
        raise DataError("the mixture has no text", "give other data sets")
    return tokenizer
