"""Documents to spans of tokens: what is done with a batch, in this process or in one of several beside it.

A batch becomes the same bytes whoever encodes it, so the shards do not depend on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from microgpt.data.documents import Document
from microgpt.data.order import content_share
from microgpt.data.shards import Span, Tokens
from microgpt.tokenizer.base import END_TURN, Tokenizer

BATCH_CHARACTERS = 1 << 20
#: the set of a corpus that is one document, until its length is known and it can be divided
WHOLE = "whole"
Piece = tuple[Any, Any]


@dataclass(frozen=True)
class Rules:
    """What decides how documents become tokens, beside the tokenizer. Plain values, so that processes can be told.

    Attributes:
        val_fraction: documents whose `content_share` lies below this are validation.
        by_position: the corpus is one document, whose last part becomes validation.
        chat: a loss mask is written.
        skip_long: documents that do not fit the context are left out.
        block_size: the context that conversations are cut for; None cuts nothing.
        dtype: of the tokens.
    """

    val_fraction: float
    by_position: bool
    chat: bool
    skip_long: bool
    block_size: int | None
    dtype: str

    def side(self, document: Document) -> str:
        """The set that a document belongs to; equal contents always fall on the same side."""
        if self.by_position:
            return WHOLE
        return "val" if content_share(document.content) < self.val_fraction else "train"

    @property
    def sets(self) -> tuple[str, ...]:
        """The sets that batches are divided into."""
        return (WHOLE,) if self.by_position else ("train", "val")


@dataclass(frozen=True)
class Encoded:
    """A batch as tokens.

    Attributes:
        spans: of each set, in the order of its documents.
        numbers: counts to be added up: bytes and characters of each set, and what became of long documents.
    """

    spans: dict[str, Span]
    numbers: dict[str, int]


def batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Documents in groups of about a million characters, as `encode_batch` is fastest on many at once."""
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


class Encoder:
    """Encodes batches.

    Args:
        tokenizer: its ids are used.
        rules: how documents are divided.
    """

    def __init__(self, tokenizer: Tokenizer, rules: Rules) -> None:
        self._tokenizer, self._rules = tokenizer, rules
        self._numbers: dict[str, int] = {}

    def encoded(self, batch: list[Document]) -> Encoded:
        """The tokens of a batch.

        Raises:
            DataError: a character has no token (char tokenizers only).
        """
        rules = self._rules
        self._numbers = dict.fromkeys(("skipped_long", "divided", "cut_replies"), 0)
        texts = [text for d in batch for text in ([t for _, t in d.turns] if d.turns else [d.text])]
        ids = iter(self._tokenizer.encode_batch(texts))
        pieces: dict[str, list[Piece]] = {name: [] for name in rules.sets}
        opens: dict[str, list[bool]] = {name: [] for name in rules.sets}
        size = dict.fromkeys(rules.sets, 0)
        characters = dict.fromkeys(rules.sets, 0)
        for document in batch:
            name = rules.side(document)
            text = document.text
            size[name] += len(text) if text.isascii() else len(text.encode("utf-8"))
            characters[name] += len(text)
            made = self._pieces(document, ids)
            pieces[name].extend(made)
            opens[name].extend([not document.continues] * len(made))
        for name in rules.sets:
            self._numbers[f"{name}.bytes"], self._numbers[f"{name}.characters"] = size[name], characters[name]
        bos = self._tokenizer.bos
        spans = {n: span(pieces[n], opens[n], bos, rules.dtype, rules.chat) for n in rules.sets}
        return Encoded(spans, self._numbers)

    def _pieces(self, document: Document, ids: Iterator[Tokens]) -> list[Piece]:
        """A document's pieces: ids without BOS, and the mask of `SetWriter.add` or None."""
        if document.turns:
            return self._conversation([(role, next(ids)) for role, _ in document.turns])
        own, room = next(ids), self._rules.block_size
        if self._rules.skip_long and room is not None and len(own) + 1 > room:
            self._numbers["skipped_long"] += 1
            return []
        return [(own, None)]

    def _conversation(self, turns: list[tuple[str, Any]]) -> list[Piece]:
        control = self._tokenizer.control
        spelled: list[tuple[str, np.ndarray[Any, Any], np.ndarray[Any, Any]]] = []
        for role, ids in turns:
            whole = np.concatenate([[control[f"<{role}>"]], ids, [control[END_TURN]]])
            counts = np.full(len(whole), role == "assistant", np.uint8)
            counts[0] = 0  # the role is given, the reply and its end are to be learned
            spelled.append((role, whole, counts))
        room = self._rules.block_size - 1 if self._rules.block_size else 1 << 62
        if sum(len(ids) for _, ids, _ in spelled) <= room:
            return [_joined(spelled)]
        if self._rules.skip_long:
            self._numbers["skipped_long"] += 1
            return []
        return self._divided(spelled, room)

    def _divided(self, spelled: list[Any], room: int) -> list[Piece]:
        """A long conversation as several, each of whole exchanges and with the system turn before it."""
        self._numbers["divided"] += 1
        system = [spelled[0]] if spelled[0][0] == "system" else []
        exchanges: list[list[Any]] = []
        for turn in spelled[len(system) :]:
            if not exchanges or (turn[0] == "user" and exchanges[-1][-1][0] == "assistant"):
                exchanges.append([])
            exchanges[-1].append(turn)
        pieces: list[Piece] = []
        current: list[Any] = []
        used = taken = sum(len(ids) for _, ids, _ in system)
        for exchange in exchanges:
            size = sum(len(ids) for _, ids, _ in exchange)
            if current and used + size > room:
                pieces.append(_joined([*system, *current]))
                current, used = [], taken
            current, used = current + exchange, used + size
            if used > room:  # one exchange alone does not fit: its end is lost, and is counted
                self._numbers["cut_replies"] += 1
                ids, mask = _joined([*system, *current])
                if mask[:room].any():  # a piece with nothing to learn is left out
                    pieces.append((ids[:room], np.append(mask[:room], np.uint8(0))))
                current, used = [], taken
        if current:
            pieces.append(_joined([*system, *current]))
        return pieces


def _joined(spelled: list[Any]) -> Piece:
    ids = np.concatenate([ids for _, ids, _ in spelled])
    mask = np.concatenate([*(counts for _, _, counts in spelled), np.zeros(1, np.uint8)])
    return ids, mask


def span(pieces: list[Piece], opens: list[bool], bos: int, dtype: str, masked: bool) -> Span:
    """Pieces as they stand in a set's files.

    Args:
        pieces: (ids of shape [n], mask of shape [n + 1] or None where all count).
        opens: whether a piece begins a document; with a mask all do.
        bos: id that stands before every document.
        dtype: of the tokens.
        masked: whether a mask is made.
    """
    if not pieces:
        return Span(np.empty(0, dtype), np.empty(0, np.int64), np.empty(0, np.uint8) if masked else None)
    first = np.array(opens)
    lengths = np.fromiter((len(ids) for ids, _ in pieces), np.int64, len(pieces)) + first
    starts = (np.cumsum(lengths) - lengths)[first]
    stream = np.empty(int(lengths.sum()), dtype)
    stream[starts] = bos
    text = np.ones(len(stream), bool)
    text[starts] = False
    stream[text] = np.concatenate([ids for ids, _ in pieces])
    mask = None
    if masked:
        mask = np.concatenate([np.ones(len(i) + 1, np.uint8) if m is None else np.asarray(m) for i, m in pieces])
    return Span(stream, starts, None if mask is None else mask.astype(np.uint8))
