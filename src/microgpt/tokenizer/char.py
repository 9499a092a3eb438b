"""One token a character, sorted, then the control tokens; written so that Hugging Face's library can read it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from microgpt.errors import DataError
from microgpt.tokenizer.base import BOS, Ids, Tokenizer


class CharTokenizer(Tokenizer):
    """Characters in order of code point, control tokens last.

    Args:
        characters: the alphabet, in any order.
        control: names of the control tokens, `<bos>` first.
    """

    kind = "char"

    def __init__(self, characters: Iterable[str], control: Sequence[str] = (BOS,)) -> None:
        self.characters = sorted(set(characters))
        self.vocab_size = len(self.characters) + len(control)
        self.control = {name: len(self.characters) + i for i, name in enumerate(control)}
        self._points = np.array([ord(c) for c in self.characters], dtype=np.uint32)

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        points = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype="<u4")
        ids = np.searchsorted(self._points, points).astype(np.int32)
        known = (ids < len(self._points)) & (self._points[np.minimum(ids, len(self._points) - 1)] == points)
        if not known.all():
            strange = sorted({chr(p) for p in points[~known][:1000].tolist()})[:8]
            raise DataError(
                f"the char tokenizer has no token for {', '.join(map(repr, strange))}",
                "leave these characters out, or train with tokenizer=bpe, which takes any text",
            )
        return np.split(ids, np.cumsum([len(t) for t in texts])[:-1]) if texts else []

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.characters[i] for i in ids if i < len(self.characters))

    def token_text(self, token: int) -> str:
        if token < len(self.characters):
            return self.characters[token]
        return list(self.control)[token - len(self.characters)]

    def raw(self, token: int) -> bytes:
        return self.characters[token].encode("utf-8", "replace") if token < len(self.characters) else b""

    def token_bytes(self) -> npt.NDArray[np.int32]:
        lengths = [len(c.encode("utf-8", "surrogatepass")) for c in self.characters]
        return np.array(lengths + [0] * len(self.control), dtype=np.int32)

    def grown(self, control: Sequence[str]) -> CharTokenizer:
        return CharTokenizer(self.characters, [*self.control, *(c for c in control if c not in self.control)])

    def to_json(self) -> str:
        vocabulary = {c: i for i, c in enumerate(self.characters)} | self.control
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        content = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [{"id": i, "content": name, **flags} for name, i in self.control.items()],
            "normalizer": None,
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"Regex": r"[\s\S]"},
                "behavior": "Isolated",
                "invert": False,
            },
            "post_processor": None,
            "decoder": {"type": "Fuse"},
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
        }
        return json.dumps(content, ensure_ascii=False, indent=1)
