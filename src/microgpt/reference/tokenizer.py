"""Letters to numbers and back.

A model computes with numbers, so each character gets one: its place in the sorted list of all
characters of the corpus. One more number, BOS ("beginning of sequence"), stands for the edge of a
document. It opens every document and closes it too: what follows BOS is a first letter, and
predicting BOS says "this is where I stop".
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["CharTokenizer"]


class CharTokenizer:
    """One id for each character, in sorted order; BOS is the last id.

    characters: all characters, id by id. bos: the id of BOS, equal to len(characters).
    vocab_size: len(characters) + 1. names.txt, with its 26 letters, gives a vocabulary of 27.
    """

    def __init__(self, documents: Iterable[str]) -> None:
        self.characters: list[str] = sorted(set[str]().union(*documents))
        self.bos: int = len(self.characters)
        self.vocab_size: int = self.bos + 1
        self._ids: dict[str, int] = {character: i for i, character in enumerate(self.characters)}

    def encode(self, document: str) -> list[int]:
        """The ids of a document with BOS on both ends: len(document) + 2 ids.

        ValueError for a character that the corpus did not have: there is no id to stand in for it.
        """
        unknown = sorted(set(document) - self._ids.keys())
        if unknown:
            raise ValueError(f"not in the vocabulary: {', '.join(map(repr, unknown))}")
        return [self.bos, *(self._ids[character] for character in document), self.bos]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; BOS decodes to nothing. ValueError for an id outside 0..vocab_size-1."""
        text: list[str] = []
        for i in ids:
            if not 0 <= i < self.vocab_size:
                raise ValueError(f"id {i} is outside 0..{self.vocab_size - 1}")
            if i != self.bos:
                text.append(self.characters[i])
        return "".join(text)
