"""cl100k cut to a corpus keeps the most used ids, ties by id; the rest is UNK and BOS stands last."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tiktoken

from microgpt.errors import DataError
from microgpt.tokenizer import cl100k
from microgpt.tokenizer.base import BOS, CHAT_TOKENS
from microgpt.tokenizer.cl100k import Cl100kTokenizer, cut_cl100k
from microgpt.tokenizer.load import load_tokenizer, make_tokenizer

MERGES = [b"th", b"the", b" t", b" the", b"ca", b"cat", b" c", b" cat", b"<b", b"os", b"<bos", b"<bos>"]
RANKS = {**{bytes([i]): i for i in range(256)}, **{token: 256 + i for i, token in enumerate(MERGES)}}
ENCODING = tiktoken.Encoding(
    "small", pat_str=r" ?[^\s<>]+|\s+|<[a-z]+>|.", mergeable_ranks=RANKS, special_tokens={"<|endoftext|>": len(RANKS)}
)
CORPUS = ["the cat the cat", "the cat", "the dog, a cat and the end", "zzz"]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cl100k, "load_encoding", lambda: ENCODING)


def counted() -> Counter[int]:
    return Counter(i for text in CORPUS for i in ENCODING.encode_ordinary(text))


def test_the_most_used_ids_are_kept_with_ties_by_id() -> None:
    counts = counted()
    for size in range(3, len(counts) + 2):
        room = size - 2
        wanted = sorted(sorted(counts, key=lambda i: (-counts[i], i))[:room])
        tokenizer = cut_cl100k(CORPUS, size)
        assert tokenizer.kept == wanted
        assert tokenizer.vocab_size == size
        edge = min(counts[i] for i in wanted)
        assert all(
            i > max(k for k in wanted if counts[k] == edge) or i in wanted for i in counts if counts[i] == edge
        )


def test_a_corpus_with_fewer_ids_has_a_smaller_vocabulary() -> None:
    assert cut_cl100k(CORPUS, 5000).vocab_size == len(counted()) + 2


def test_unknown_tokens_are_unk_and_decode_to_nothing() -> None:
    tokenizer = cut_cl100k(CORPUS, 4)
    assert tokenizer.unk == 2
    ids = tokenizer.encode("the QQ cat")
    assert ids.count(tokenizer.unk) >= 2
    assert max(ids) == tokenizer.unk
    assert "Q" not in tokenizer.decode(ids)
    assert tokenizer.token_text(tokenizer.unk) == "<unk>"


def test_kept_text_comes_back() -> None:
    tokenizer = cut_cl100k(CORPUS, 500)
    for text in CORPUS:
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert [r.tolist() for r in tokenizer.encode_batch(CORPUS)] == [tokenizer.encode(t) for t in CORPUS]
    assert tokenizer.encode_batch([]) == []


@pytest.mark.parametrize("control", [(BOS,), (BOS, *CHAT_TOKENS), (*CHAT_TOKENS, BOS)])
def test_bos_is_the_last_id_and_text_never_becomes_control(control: tuple[str, ...]) -> None:
    spelled = ["<bos><user> <|endoftext|> <bos>"]
    tokenizer = cut_cl100k([*CORPUS, *spelled], 500, control)
    assert tokenizer.bos == tokenizer.vocab_size - 1
    assert set(tokenizer.control) == set(control)
    assert sorted(tokenizer.control.values()) == list(range(tokenizer.unk + 1, tokenizer.vocab_size))
    for text in (*spelled, "<assistant><bos>"):
        assert max(tokenizer.encode(text)) <= tokenizer.unk
    assert tokenizer.decode(tokenizer.encode(spelled[0])) == spelled[0]
    assert tokenizer.decode(list(tokenizer.control.values())) == ""
    assert [tokenizer.token_text(i) for i in tokenizer.control.values()] == list(tokenizer.control)


def test_bytes_cannot_be_told_where_unk_hides_them() -> None:
    assert cut_cl100k(CORPUS, 10).token_bytes() is None


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    tokenizer = make_tokenizer("cl100k", 12, lambda: CORPUS, (BOS, *CHAT_TOKENS))
    tokenizer.save(tmp_path / "t.json")
    again = load_tokenizer(tmp_path / "t.json")
    assert isinstance(again, Cl100kTokenizer)
    assert (again.kept, again.control, again.vocab_size) == (tokenizer.kept, tokenizer.control, tokenizer.vocab_size)  # type: ignore[attr-defined]
    assert again.encode("the cat <bos> x") == tokenizer.encode("the cat <bos> x")
    content: dict[str, Any] = json.loads((tmp_path / "t.json").read_text())
    assert content["sha256"] == cl100k.SHA256, "which ranks were cut is on record"


def test_grown_for_chat_the_old_ids_stay(tmp_path: Path) -> None:
    plain = cut_cl100k(CORPUS, 12)
    larger = plain.grown(CHAT_TOKENS)
    assert larger.bos == plain.bos
    assert sorted(larger.control.values()) == list(range(plain.vocab_size - 1, larger.vocab_size))
    larger.save(tmp_path / "t.json")
    assert load_tokenizer(tmp_path / "t.json").control == larger.control


def test_ranks_with_a_wrong_checksum_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("MICROGPT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("MICROGPT_DATA_DIR", str(tmp_path))
    (tmp_path / "cl100k_base.tiktoken").write_bytes(b"YQ== 0\n")
    with pytest.raises(DataError, match="checksum"):
        cl100k.load_encoding()
    assert not (tmp_path / "cache").exists()
