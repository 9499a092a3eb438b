"""Making a tokenizer from config and documents, and reading one back with distrust."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from microgpt.errors import DataError, ModelError, UsageError
from microgpt.tokenizer.base import BOS, Tokenizer
from microgpt.tokenizer.bpe import BpeTokenizer, train_bpe
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.cl100k import FORMAT, Cl100kTokenizer, cut_cl100k

KINDS = ("char", "bpe", "cl100k")
MAX_BYTES = 64 << 20


def make_tokenizer(
    kind: str, vocab_size: int, texts: Callable[[], Iterable[str]], control: Sequence[str] = (BOS,)
) -> Tokenizer:
    """A tokenizer of a kind for a corpus.

    Args:
        kind: one of `KINDS`.
        vocab_size: tokens of bpe and cl100k; char takes as many as there are characters.
        texts: gives the documents, once a call.
        control: control tokens, `<bos>` first.
    """
    if kind == "char":
        characters: set[str] = set()
        for text in texts():
            characters.update(text)
        if len(characters) > 60_000:
            raise DataError(f"the corpus has {len(characters):,} different characters", "use tokenizer=bpe")
        return CharTokenizer(characters, control)
    if kind == "bpe":
        return train_bpe(texts(), vocab_size, control)
    if kind == "cl100k":
        return cut_cl100k(texts(), vocab_size, control)
    raise UsageError(f"tokenizer.kind={kind}: there is no such tokenizer", f"use {', '.join(KINDS)}")


def parse_tokenizer(text: str, source: str) -> Tokenizer:
    """A tokenizer from the content of a tokenizer.json.

    Args:
        text: the JSON.
        source: what to call it in errors.

    Raises:
        ModelError: it is not a tokenizer of this project, or its ids have gaps.
    """

    def wrong(reason: str) -> ModelError:
        return ModelError(f"{source} is not a usable tokenizer: {reason}", "take it from its checkpoint again")

    try:
        content: Any = json.loads(text)
        if not isinstance(content, dict):
            raise wrong("not a JSON object")
        if content.get("type") == FORMAT:
            kept = [int(i) for i in content["kept"]]
            names: Any = content["control"]
            if not isinstance(names, list) or BOS not in names or len(set(names)) < len(names):
                raise wrong(f"its control tokens are not different names with {BOS} among them")
            if not all(isinstance(name, str) for name in names):
                raise wrong("its control tokens are not texts")
            tokenizer: Tokenizer = Cl100kTokenizer(kept, [str(n) for n in content["control"]])
            if sorted(set(kept)) != kept or (kept and (kept[0] < 0 or kept[-1] >= tokenizer.encoding.n_vocab)):
                raise wrong("its kept ids are not sorted ids of cl100k_base")
            return tokenizer
        model: Any = content["model"]
        if model["type"] not in ("WordLevel", "BPE"):
            raise wrong(f"model type {model['type']!r}")
        control = {str(t["content"]): int(t["id"]) for t in content["added_tokens"]}
        vocabulary: dict[str, int] = {**model["vocab"], **control}
        if sorted(vocabulary.values()) != list(range(len(vocabulary))):
            raise wrong("its ids are not 0, 1, 2, ... without a gap")
        if BOS not in control:
            raise wrong(f"it has no {BOS}")
        if model["type"] == "BPE":
            if reason := _broken_promise(content):
                raise wrong(reason)
            return BpeTokenizer(text)
        characters = [c for c in vocabulary if c not in control]
        if not characters:
            raise wrong("it has no characters")
        if any(len(c) != 1 for c in characters):
            raise wrong("a char tokenizer with longer tokens")
        tokenizer = CharTokenizer(characters, sorted(control, key=control.__getitem__))
        if [vocabulary[c] for c in tokenizer.characters] != list(range(len(characters))):
            raise wrong("its characters are not in order")
        return tokenizer
    except (ModelError, UsageError, DataError):
        raise
    except Exception as error:  # the tokenizers library raises bare Exception
        raise wrong(f"{type(error).__name__} {str(error)[:120]}") from None


def _broken_promise(content: Any) -> str:
    """Why a BPE file would change, cut or lose text, or take control tokens from it; nothing where it does not."""
    from tokenizers import pre_tokenizers

    from microgpt.tokenizer.splits import split_name

    model = content["model"]
    for key in ("truncation", "padding", "normalizer", "post_processor"):
        if content.get(key) is not None:
            return f"{key} is not allowed"
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"):
        if model.get(key):
            return f"model.{key} is not allowed"
    if not split_name(content["pre_tokenizer"]) or content["decoder"]["type"] != "ByteLevel":
        return "it is not byte-level, or divides text in a way that is not known"
    if not set(pre_tokenizers.ByteLevel.alphabet()) <= set(model["vocab"]):
        return "it does not have all 256 bytes"
    for token in content["added_tokens"]:
        if not token["special"] or any(token[key] for key in ("single_word", "lstrip", "rstrip", "normalized")):
            return f"{token['content']!r} would be taken from text"
    return ""


def load_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer from a file.

    Raises:
        ModelError: the file is missing or is not a tokenizer.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path} is larger than {MAX_BYTES:,} bytes", "this is no tokenizer.json")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "give a folder with a tokenizer.json") from None
    except UnicodeDecodeError:
        raise ModelError(f"{path} is not UTF-8", "take it from its checkpoint again") from None
    return parse_tokenizer(text, str(path))
