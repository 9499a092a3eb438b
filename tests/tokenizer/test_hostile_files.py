"""A tokenizer.json from a stranger is refused, or is a tokenizer that keeps its promises; nothing else."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microgpt.errors import ModelError
from microgpt.tokenizer import load
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.load import load_tokenizer, parse_tokenizer

CHAR = json.loads(CharTokenizer("abc").to_json())
BPE = json.loads(train_bpe(["the cat the cat the cat"], 262).to_json())


def refused(text: str) -> None:
    start = time.monotonic()
    with pytest.raises(ModelError) as caught:
        parse_tokenizer(text, "some/tokenizer.json")
    assert "some/tokenizer.json" in str(caught.value)
    assert len(str(caught.value)) < 500
    assert time.monotonic() - start < 1


@pytest.mark.parametrize(
    "text",
    ["", " ", "{", "{}", "[]", "null", "3", '"x"', "NaN", "[" * 100_000, '{"a":' * 100_000, '{"model": null}',
     '{"model": {"type": "BPE"}}', '{"model": {"type": "Unigram", "vocab": []}, "added_tokens": []}',
     '{"model": [], "added_tokens": {}}', '{"type": "microgpt-cl100k"}', "\x00", "\ud800"],
    ids=lambda t: repr(t[:20]),
)  # fmt: skip
def test_what_is_no_tokenizer_is_refused(text: str) -> None:
    refused(text)


def at(*path: Any) -> Callable[[Any, Any], None]:
    def put(content: Any, value: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return put


WRONG: list[tuple[str, Callable[[Any, Any], None], Any]] = [
    ("a gap in the ids", at("model", "vocab", "c"), 7),
    ("an id twice", at("model", "vocab", "c"), 1),
    ("a negative id", at("model", "vocab", "a"), -1),
    ("a huge id", at("model", "vocab", "c"), 10**30),
    ("an id as text", at("model", "vocab", "c"), "2"),
    ("an infinite id", at("added_tokens", 0, "id"), 1e999),
    ("no id", at("added_tokens", 0), {"content": "<bos>"}),
    ("no vocabulary", at("model", "vocab"), {}),
    ("a list for a vocabulary", at("model", "vocab"), [["a", 0]]),
    ("a number for a vocabulary", at("model", "vocab"), 5),
    ("no control token", at("added_tokens"), []),
    ("a control token beyond", at("added_tokens", 0, "id"), 900),
    ("another control token", at("added_tokens", 0, "content"), "<start>"),
    ("another kind", at("model", "type"), "WordPiece"),
    ("no kind", at("model"), {"vocab": {}}),
]


@pytest.mark.parametrize("base", [CHAR, BPE], ids=["char", "bpe"])
@pytest.mark.parametrize("name, put, value", WRONG, ids=[w[0] for w in WRONG])
def test_wrong_ids_and_types_are_refused(name: str, put: Callable[[Any, Any], None], value: Any, base: Any) -> None:
    content = copy.deepcopy(base)
    put(content, value)
    refused(json.dumps(content))


def test_a_char_tokenizer_with_odd_tokens_is_refused() -> None:
    for change in ({"ab": 0}, {"": 0}, {"c": 0, "b": 1, "a": 2}):
        content = copy.deepcopy(CHAR)
        old = content["model"]["vocab"]
        content["model"]["vocab"] = {**{k: v for k, v in old.items() if v not in change.values()}, **change}
        refused(json.dumps(content))


def test_a_char_tokenizer_without_characters_is_refused() -> None:
    content = copy.deepcopy(CHAR)
    content["model"]["vocab"] = {"<bos>": 0}
    content["added_tokens"][0]["id"] = 0
    refused(json.dumps(content))


BROKEN_BPE: list[tuple[str, Callable[[Any, Any], None], Any]] = [
    ("merges of unknown tokens", at("model", "merges"), [["Q!", "Z?"]]),
    ("merges that are numbers", at("model", "merges"), [1, 2]),
    ("one text for merges", at("model", "merges"), "a b"),
    ("control tokens read from text", at("added_tokens", 0, "special"), False),
    ("cuts text", at("truncation"), {"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}),
    ("pads", at("padding"), {"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "<bos>"}),
    ("changes text", at("normalizer"), {"type": "Lowercase"}),
    ("replaces text", at("normalizer"), {"type": "Replace", "pattern": {"String": "a"}, "content": "b"}),
    ("no bytes", at("pre_tokenizer"), None),
    ("adds a space", at("pre_tokenizer", "add_prefix_space"), True),
    ("other text back", at("decoder"), {"type": "Fuse"}),
    ("rolls dice", at("model", "dropout"), 0.9),
    ("prefixes", at("model", "continuing_subword_prefix"), "##"),
]  # fmt: skip


@pytest.mark.parametrize("name, put, value", BROKEN_BPE, ids=[w[0] for w in BROKEN_BPE])
def test_a_bpe_file_that_breaks_a_promise_is_refused(name: str, put: Callable[[Any, Any], None], value: Any) -> None:
    content = copy.deepcopy(BPE)
    put(content, value)
    refused(json.dumps(content))


def test_a_bpe_without_all_bytes_is_refused() -> None:
    content = copy.deepcopy(BPE)
    content["model"]["vocab"] = {"<bos>": 0, "a": 1, "b": 2}
    content["model"]["merges"] = []
    refused(json.dumps(content))


def test_a_bpe_with_a_further_token_taken_from_text_is_refused() -> None:
    content = copy.deepcopy(BPE)
    new = {**content["added_tokens"][0], "id": len(content["model"]["vocab"]), "content": "the", "special": False}
    content["added_tokens"].append(new)
    refused(json.dumps(content))


@pytest.mark.parametrize("kept", [[3, 1], [1, 1], [-1, 2], [0, 10**9], ["x"], None, [1e999]])
def test_a_cl100k_file_with_wrong_ids_is_refused(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microgpt.tokenizer.cl100k.load_encoding", small_encoding)
    refused(json.dumps({"type": load.FORMAT, "kept": kept, "control": ["<bos>"]}))


@pytest.mark.parametrize("control", [[], ["<user>"], ["<bos>", "<user>", "<user>"], [3], "x", None])
def test_a_cl100k_file_with_wrong_control_tokens_is_refused(control: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microgpt.tokenizer.cl100k.load_encoding", small_encoding)
    refused(json.dumps({"type": load.FORMAT, "kept": [1, 2], "control": control}))


def small_encoding() -> Any:
    import tiktoken

    ranks = {bytes([i]): i for i in range(256)}
    return tiktoken.Encoding("small", pat_str=r"\S+|\s+", mergeable_ranks=ranks, special_tokens={})


def test_files_that_are_missing_huge_or_binary_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    for name in (path, tmp_path):
        with pytest.raises(ModelError, match="cannot be read"):
            load_tokenizer(name)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="UTF-8"):
        load_tokenizer(path)
    with path.open("wb") as file:
        file.truncate(load.MAX_BYTES + 1)
    start = time.monotonic()
    with pytest.raises(ModelError, match="larger than"):
        load_tokenizer(path)
    assert time.monotonic() - start < 0.5
