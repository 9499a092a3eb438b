"""Text to ids and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from microgpt.reference import CharTokenizer


def test_characters_are_sorted_and_bos_is_last() -> None:
    tokenizer = CharTokenizer(["emma", "ava"])
    assert tokenizer.characters == ["a", "e", "m", "v"]
    assert tokenizer.bos == 4
    assert tokenizer.vocab_size == 5
    assert tokenizer.encode("emma") == [4, 1, 2, 2, 0, 4]


@given(st.lists(st.text(), min_size=1))
def test_every_document_comes_back(documents: list[str]) -> None:
    tokenizer = CharTokenizer(documents)
    for document in documents:
        ids = tokenizer.encode(document)
        assert ids[0] == ids[-1] == tokenizer.bos
        assert len(ids) == len(document) + 2
        assert tokenizer.bos not in ids[1:-1]
        assert tokenizer.decode(ids) == document


def test_an_unknown_character_is_named() -> None:
    with pytest.raises(ValueError, match=r"'x', 'z'"):
        CharTokenizer(["ab"]).encode("zax")


@pytest.mark.parametrize("i", [-1, 3])
def test_an_id_outside_the_vocabulary_is_refused(i: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        CharTokenizer(["ab"]).decode([i])
