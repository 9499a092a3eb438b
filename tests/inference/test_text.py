"""Tokens to text: never half a character, never a stop text, and in the end what the tokenizer itself says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.inference.text import Writer
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer

BPE = train_bpe(["hello there, how are you today?", "grüße 😀 an alle"] * 4, 300, (BOS, *CHAT_TOKENS))


def written(tokenizer: Tokenizer, ids: list[int], stop: list[str] | None = None) -> tuple[list[str], Writer]:
    writer, pieces = Writer(tokenizer, stop or []), []
    for token in ids:
        if not writer.stopped:
            pieces.append(writer.add(token))
    return [*pieces, writer.close()], writer


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.lists(st.integers(0, BPE.vocab_size - 1), max_size=40))
def test_any_ids_become_what_the_tokenizer_makes_of_them(ids: list[int]) -> None:
    pieces, writer = written(BPE, ids)
    assert "".join(pieces) == writer.text == BPE.decode(ids)


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.text(max_size=30))
def test_a_piece_never_holds_half_a_character(text: str) -> None:
    pieces, writer = written(BPE, BPE.encode(text))
    assert writer.text == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def test_every_byte_has_its_token_and_control_tokens_have_none() -> None:
    raw = [BPE.raw(i) for i in range(BPE.vocab_size)]
    assert {bytes([b]) for b in range(256)} <= set(raw)
    assert all(raw[i] == b"" for i in BPE.control.values())
    lengths = BPE.token_bytes()
    assert lengths is not None
    assert [len(r) for r in raw] == lengths.tolist()
    characters = CharTokenizer("aé€")
    assert [characters.raw(i) for i in range(characters.vocab_size)] == [b"a", "é".encode(), "€".encode(), b""]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6))
def test_a_stop_text_is_found_wherever_the_pieces_break(seed: int) -> None:
    draw = random.Random(seed)
    tokenizer = CharTokenizer("ab")
    text = "".join(draw.choices("ab", k=draw.randrange(30)))
    stop = ["".join(draw.choices("ab", k=draw.randrange(1, 6))) for _ in range(draw.randrange(1, 3))]
    pieces, writer = written(tokenizer, tokenizer.encode(text), stop)
    ends = [text.find(s) + len(s) for s in stop if s in text]
    if ends:  # the first that is complete ends the text; of two that are complete, the earlier begins it
        seen = text[: min(ends)]
        assert writer.text == seen[: min(p for s in stop if (p := seen.find(s)) >= 0)]
    else:
        assert writer.text == text
    assert "".join(pieces) == writer.text
    assert writer.stopped == bool(ends)


@pytest.mark.parametrize("stop", [[], [""]])
def test_an_empty_stop_text_stops_nothing(stop: list[str]) -> None:
    assert written(BPE, BPE.encode("hello"), stop)[1].text == "hello"
