"""Text comes back from its tokens, control tokens are placed by id only, and a saved tokenizer is the same one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Fast

from microgpt.errors import DataError
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import BpeTokenizer, train_bpe
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer, parse_tokenizer

CONTROL = (BOS, *CHAT_TOKENS)
CORPUS = ["the cat sat on the mat", "the dog and the cat sat", "naïve café 😀 <bos>", "x = 1;\n\ty = 2\r\n"] * 3
ALPHABET = sorted(set("".join(CORPUS)) | set("<>|_abcdefghijklmnopqrstuvwxyzABC é€😀\x00\n\r\t\u2028\u200d\ufeff"))
BPE = train_bpe(CORPUS, 300, CONTROL)
CHAR = CharTokenizer(ALPHABET, CONTROL)
SPELLINGS = [*CONTROL, "<unk>", "<|endoftext|>", "<bos", "bos>", "<BOS>", " <bos> ", "<bos><bos>"]
MIXED = st.lists(st.one_of(st.text(max_size=8), st.sampled_from(SPELLINGS)), max_size=8).map("".join)
KNOWN = st.lists(st.one_of(st.sampled_from(ALPHABET), st.sampled_from(SPELLINGS[:5])), max_size=30).map("".join)


@given(MIXED)
@settings(max_examples=300, deadline=None)
def test_any_text_comes_back_from_bpe_with_no_control_token(text: str) -> None:
    ids = BPE.encode(text)
    assert BPE.decode(ids) == text
    assert not set(ids) & set(BPE.control.values())
    assert int(BPE.token_bytes()[ids].sum()) == len(text.encode())


@given(KNOWN)
@settings(max_examples=300, deadline=None)
def test_any_known_text_comes_back_from_char_with_no_control_token(text: str) -> None:
    ids = CHAR.encode(text)
    assert CHAR.decode(ids) == text
    assert len(ids) == len(text)
    assert not set(ids) & set(CHAR.control.values())
    assert int(CHAR.token_bytes()[ids].sum()) == len(text.encode())


@given(st.text(min_size=1, max_size=30))
@settings(max_examples=100, deadline=None)
def test_a_char_tokenizer_of_a_text_knows_that_text(text: str) -> None:
    tokenizer = CharTokenizer(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.vocab_size == len(set(text)) + 1
    assert tokenizer.bos == tokenizer.vocab_size - 1


@given(st.lists(KNOWN, max_size=6))
@settings(max_examples=100, deadline=None)
def test_a_batch_is_its_texts_one_by_one(batch: list[str]) -> None:
    for tokenizer in (BPE, CHAR):
        rows = tokenizer.encode_batch(batch)
        assert [row.tolist() for row in rows] == [tokenizer.encode(text) for text in batch]
        assert all(row.dtype == np.int32 for row in rows)


@given(MIXED)
@settings(max_examples=150, deadline=None)
def test_the_tokenizers_library_reads_bpe_to_the_same_ids(text: str) -> None:
    fast = library(BPE)
    assert fast.encode(text, add_special_tokens=False).ids == BPE.encode(text)
    assert fast.decode(BPE.encode(text)) == text


@given(KNOWN)
@settings(max_examples=150, deadline=None)
def test_the_tokenizers_library_reads_char_to_the_same_ids(text: str) -> None:
    fast = library(CHAR)
    assert fast.encode(text, add_special_tokens=False).ids == CHAR.encode(text)
    assert fast.decode(CHAR.encode(text)) == text


_LIBRARY: dict[str, Fast] = {}


def library(tokenizer: Tokenizer) -> Fast:
    if tokenizer.kind not in _LIBRARY:
        fast = Fast.from_str(tokenizer.to_json())
        fast.encode_special_tokens = True
        _LIBRARY[tokenizer.kind] = fast
    return _LIBRARY[tokenizer.kind]


@pytest.mark.parametrize("tokenizer", [BPE, CHAR], ids=["bpe", "char"])
def test_the_library_sees_our_control_tokens_as_control_tokens(tokenizer: Tokenizer) -> None:
    fast = Fast.from_str(tokenizer.to_json())
    assert {name: fast.token_to_id(name) for name in tokenizer.control} == tokenizer.control
    assert fast.get_vocab_size() == tokenizer.vocab_size
    assert fast.encode("a<bos>b", add_special_tokens=False).ids.count(tokenizer.bos) == 1


@pytest.mark.parametrize("tokenizer", [BPE, CHAR, CharTokenizer("ab")], ids=["bpe", "char", "plain"])
def test_a_saved_tokenizer_is_loaded_equal(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    tokenizer.save(path)
    again = load_tokenizer(path)
    assert type(again) is type(tokenizer)
    assert (again.vocab_size, again.control, again.kind) == (tokenizer.vocab_size, tokenizer.control, tokenizer.kind)
    assert again.to_json() == tokenizer.to_json()
    text = "ab" if tokenizer.vocab_size < 9 else "the cat <bos> sat <user>"
    assert again.encode(text) == tokenizer.encode(text)
    given, wanted = again.token_bytes(), tokenizer.token_bytes()
    assert given is not None
    assert wanted is not None
    assert given.tolist() == wanted.tolist()


@pytest.mark.parametrize("tokenizer", [BPE, CHAR], ids=["bpe", "char"])
def test_ids_run_without_a_gap_and_each_can_be_shown(tokenizer: Tokenizer) -> None:
    sizes = tokenizer.token_bytes()
    assert sizes is not None
    assert len(sizes) == tokenizer.vocab_size
    assert all(sizes[i] == 0 for i in tokenizer.control.values())
    assert (np.delete(sizes, list(tokenizer.control.values())) > 0).all()
    assert all(isinstance(tokenizer.token_text(i), str) for i in range(tokenizer.vocab_size))
    assert [tokenizer.token_text(i) for i in tokenizer.control.values()] == list(tokenizer.control)
    assert tokenizer.decode(list(tokenizer.control.values())) == ""
    assert set(tokenizer.control) == set(CONTROL)
    assert tokenizer.is_chat


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_grown_for_chat_the_old_ids_stay(kind: str) -> None:
    plain = make_tokenizer(kind, 300, lambda: CORPUS)
    larger = plain.grown(CHAT_TOKENS)
    assert (plain.is_chat, larger.is_chat) == (False, True)
    assert larger.vocab_size == plain.vocab_size + len(CHAT_TOKENS)
    assert larger.bos == plain.bos
    assert sorted(larger.control.values())[1:] == list(range(plain.vocab_size, larger.vocab_size))
    assert larger.encode("the cat <bos> sat") == plain.encode("the cat <bos> sat")
    assert parse_tokenizer(larger.to_json(), "x").to_json() == larger.to_json()
    assert larger.grown(CHAT_TOKENS).vocab_size == larger.vocab_size


def test_training_bpe_twice_gives_the_same_tokens() -> None:
    assert train_bpe(CORPUS, 300).to_json() == train_bpe(CORPUS, 300).to_json()
    assert train_bpe(CORPUS, 280).vocab_size == 280


def test_bpe_has_all_bytes_even_of_a_poor_corpus() -> None:
    poor = train_bpe(["a"], 400)
    assert poor.vocab_size == 257
    assert poor.decode(poor.encode("日本\x00\xff")) == "日本\x00\xff"


def test_broken_utf8_decodes_to_replacement_characters() -> None:
    ids = BPE.encode("€")
    assert len(ids) > 1
    assert "\ufffd" in BPE.decode(ids[:1])


@pytest.mark.parametrize("text, named", [("ab☃c", "☃"), ("\u0000", "\\x00"), ("😀", "😀"), ("z" * 99 + "é", "é")])
def test_an_unknown_character_is_named(text: str, named: str) -> None:
    with pytest.raises(DataError) as caught:
        CharTokenizer("abcz").encode(text)
    assert repr(named).strip("'").replace("\\\\", "\\") in caught.value.what
    assert "\n" not in str(caught.value)


def test_many_unknown_characters_are_named_briefly() -> None:
    with pytest.raises(DataError) as caught:
        CharTokenizer("ab").encode("".join(map(chr, range(0x4E00, 0x5E00))))
    assert len(str(caught.value)) < 300


def test_too_many_characters_are_refused_for_char() -> None:
    everything = "".join(chr(c) for c in range(32, 70_000) if not 0xD800 <= c < 0xE000)
    with pytest.raises(DataError, match="different characters"):
        make_tokenizer("char", 300, lambda: [everything])


def test_tokenizer_json_is_plain_json_without_code() -> None:
    for tokenizer in (BPE, CHAR):
        content = json.loads(tokenizer.to_json())
        assert content["model"]["type"] in ("BPE", "WordLevel")
        assert all(entry["special"] for entry in content["added_tokens"])
    assert isinstance(BPE, BpeTokenizer)
