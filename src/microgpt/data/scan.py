"""The first pass over all documents: every bad row, how the split falls, and what a tokenizer learns from."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from microgpt.config.schema import DataConfig, TokenizerConfig
from microgpt.data.bar import Passes
from microgpt.data.documents import BadRows, Document, read_documents
from microgpt.data.order import content_share
from microgpt.data.sources import Source
from microgpt.errors import DataError


@dataclass
class Split:
    """How documents fall into training and validation, decided by a first pass over them.

    Attributes:
        documents: how many there are.
        val_fraction: documents whose `content_share` lies below this are validation.
        by_position: the corpus is one document, and its last part is validation.
        bad: the rows that could not be used.
        chat: whether there are conversations among the documents.
        characters: of all documents together.
    """

    documents: int
    val_fraction: float
    by_position: bool
    bad: BadRows
    chat: bool = False
    characters: int = 0

    def is_val(self, document: Document) -> bool:
        """Whether a document is held out; equal contents always fall on the same side."""
        return not self.by_position and content_share(document.content) < self.val_fraction


def scan(sources: list[Source], data: DataConfig, passes: Passes | None = None) -> Split:
    """Read every document once: find all bad rows, and decide how the split falls.

    Raises:
        DataError: bad rows and `on_bad_rows=fail`, no document at all, or none left to validate on.
    """
    bad = BadRows()
    documents = held_out = characters = 0
    chat = False
    lowest: list[float] = []  # the two smallest shares of different contents, negated
    with (passes or Passes(sources, False)).named("checking") as told:
        for document in read_documents(sources, data, bad, told):
            characters += len(document.text)
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
        return Split(1, data.val_fraction, True, bad, characters=characters)
    fraction = data.val_fraction
    if not held_out:  # so few documents that none fell below: the lowest is held out
        if len(lowest) < 2:
            raise DataError(
                "the validation split is empty: all documents have the same content",
                "add different documents",
            )
        fraction = float(np.nextafter(-max(lowest), 1))
    return Split(documents, fraction, False, bad, chat, characters)


def learning_texts(
    sources: list[Source], data: DataConfig, split: Split, tokenizer: TokenizerConfig, passes: Passes
) -> Iterator[str]:
    """What a tokenizer is made from: training documents, or a sample of them where there are more than it needs.

    The sample is chosen by content, so that it is the same for any order of the files, and needs no memory.
    """
    share = 1.0
    if tokenizer.kind != "char":  # characters are few, and each must be known
        share = tokenizer.sample_mb * 1e6 / max(1, split.characters)
    with passes.named("learning tokens") as told:
        for document in read_documents(sources, data, BadRows(), told):
            if share < 1 and content_share(f"learn {document.text}") >= share:
                continue
            # a character that only validation has needs a token too
            if tokenizer.kind == "char" or not split.is_val(document):
                yield from (text for _, text in document.turns) if document.turns else (document.text,)
