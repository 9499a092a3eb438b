"""OpenAI's cl100k_base cut down to the tokens that a corpus uses most; the rest becomes UNK."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt import files
from microgpt.errors import DataError, UsageError
from microgpt.tokenizer.base import BOS, Ids, Tokenizer

URL = "https://openaipublic.blob.core.windows.net/encodings/cl100k_base.tiktoken"
SHA256 = "223921b76ee99bde995b7ff738513eef100fb51d18c93597a113bcffe865b2a7"
FORMAT = "microgpt-cl100k"
UNK = "<unk>"


def load_encoding() -> Any:
    """tiktoken's cl100k_base from MICROGPT_DATA_DIR, from the cache, or over the network, by checksum.

    Raises:
        UsageError: the cl100k extra is not installed.
        DataError: the ranks are not at hand, or are damaged.
    """
    try:
        import tiktoken
    except ImportError:
        raise UsageError(
            "tokenizer=cl100k needs tiktoken", "pip install 'microgpt[cl100k]', or use tokenizer=bpe"
        ) from None
    folder = files.cache_folder() / "tiktoken"
    cached = folder / hashlib.sha1(URL.encode()).hexdigest()  # the name under which tiktoken itself looks
    if not cached.exists():
        given = Path(os.environ.get("MICROGPT_DATA_DIR", "")) / "cl100k_base.tiktoken"
        content = given.read_bytes() if given.is_file() else _download()
        if hashlib.sha256(content).hexdigest() != SHA256:
            raise DataError("cl100k_base.tiktoken has a wrong checksum", "remove it and fetch it anew")
        folder.mkdir(parents=True, exist_ok=True)
        files.write_bytes(cached, content)
    os.environ["TIKTOKEN_CACHE_DIR"] = str(folder)
    return tiktoken.get_encoding("cl100k_base")


def _download() -> bytes:
    from urllib.error import URLError
    from urllib.request import urlopen

    try:
        with urlopen(URL, timeout=10) as answer:
            return answer.read(16_000_000)
    except (URLError, OSError) as error:
        raise DataError(
            "cl100k_base.tiktoken is not at hand and cannot be downloaded",
            "put it into MICROGPT_DATA_DIR, or use tokenizer=bpe",
        ) from error


class Cl100kTokenizer(Tokenizer):
    """The kept ids of an encoding in order of id, then UNK, then the control tokens.

    Args:
        kept: ids of the encoding, sorted.
        control: names of the control tokens, in the order of their ids.
        encoding: a tiktoken encoding; loaded by checksum where None.
    """

    kind = "cl100k"

    def __init__(self, kept: Sequence[int], control: Sequence[str] = (BOS,), encoding: Any | None = None) -> None:
        self.encoding: Any = encoding or load_encoding()
        self.kept = list(kept)
        names = list(control)
        self.unk = len(self.kept)
        self.control = {name: self.unk + 1 + i for i, name in enumerate(names)}
        self.vocab_size = self.unk + 1 + len(names)
        self._ids = {old: new for new, old in enumerate(self.kept)}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        rows = self.encoding.encode_ordinary_batch(list(texts))
        return [np.array([self._ids.get(i, self.unk) for i in row], dtype=np.int32) for row in rows]

    def decode(self, ids: Sequence[int]) -> str:
        return self.encoding.decode([self.kept[i] for i in ids if i < self.unk])

    def token_text(self, token: int) -> str:
        if token < self.unk:
            return self.encoding.decode([self.kept[token]])
        return UNK if token == self.unk else list(self.control)[token - self.unk - 1]

    def raw(self, token: int) -> bytes:
        return self.encoding.decode_single_token_bytes(self.kept[token]) if token < self.unk else b""

    def token_bytes(self) -> npt.NDArray[np.int32] | None:
        return None

    def grown(self, control: Sequence[str]) -> Cl100kTokenizer:
        names = [*self.control, *(c for c in control if c not in self.control)]
        return Cl100kTokenizer(self.kept, names, self.encoding)

    def to_json(self) -> str:
        content = {"type": FORMAT, "sha256": SHA256, "kept": self.kept, "control": list(self.control)}
        return json.dumps(content)


def cut_cl100k(
    texts: Iterable[str], vocab_size: int, control: Sequence[str] = (BOS,), encoding: Any | None = None
) -> Cl100kTokenizer:
    """Keep the most frequent ids of the texts (ties by id) so that the vocabulary has `vocab_size` tokens."""
    ranks: Any = encoding or load_encoding()
    counts: Counter[int] = Counter()
    for text in texts:
        counts.update(ranks.encode_ordinary(text))
    room = vocab_size - 1 - len(control)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    bos_last = [name for name in control if name != BOS] + [BOS]
    return Cl100kTokenizer(sorted(i for i, _ in ranked[:room]), bos_last, ranks)
