"""Byte-level BPE: any text is a sequence of its tokens, and comes back byte for byte."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.tokenizer.base import BOS, Ids, Tokenizer


def _alphabet() -> dict[str, int]:
    """The byte for which each character of the byte-level alphabet stands (Radford et al. 2019, GPT-2's encoder):
    printable Latin-1 stands for itself, the other bytes for the characters from 256 on, in order."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in shown]
    return {chr(b): b for b in shown} | {chr(256 + i): b for i, b in enumerate(hidden)}


_BYTE_OF = _alphabet()


class BpeTokenizer(Tokenizer):
    """A `tokenizers` byte-level BPE. Control tokens stand first.

    Args:
        content: the content of a tokenizer.json.
    """

    kind = "bpe"

    def __init__(self, content: str) -> None:
        from tokenizers import Tokenizer as Fast

        self._fast: Any = Fast.from_str(content)
        self._fast.encode_special_tokens = True  # text that spells a control token stays text
        self.vocab_size = self._fast.get_vocab_size()
        added = self._fast.get_added_tokens_decoder()
        self.control = {token.content: i for i, token in sorted(added.items())}

    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        encoded = self._fast.encode_batch_fast(list(texts), add_special_tokens=False)
        ids = [e.ids for e in encoded]
        flat = np.fromiter(itertools.chain.from_iterable(ids), np.int32)
        ends = list(itertools.accumulate(map(len, ids)))
        return [flat[end - len(row) : end] for row, end in zip(ids, ends)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._fast.decode([int(i) for i in ids], skip_special_tokens=True)

    def token_text(self, token: int) -> str:
        name = self._fast.id_to_token(token)
        return name if name in self.control else self._fast.decode([token])

    def raw(self, token: int) -> bytes:
        name: str = self._fast.id_to_token(token)
        return b"" if name in self.control else bytes(_BYTE_OF[c] for c in name)

    def token_bytes(self) -> npt.NDArray[np.int32]:
        # in the byte-level alphabet one character stands for one byte
        lengths = [len(self._fast.id_to_token(i)) for i in range(self.vocab_size)]
        for i in self.control.values():
            lengths[i] = 0
        return np.array(lengths, dtype=np.int32)

    def grown(self, control: Sequence[str]) -> BpeTokenizer:
        from tokenizers import AddedToken

        larger = BpeTokenizer(self.to_json())
        new = [AddedToken(c, special=True, normalized=False) for c in control if c not in self.control]
        larger._fast.add_special_tokens(new)
        return BpeTokenizer(larger.to_json())

    def to_json(self) -> str:
        return self._fast.to_str(pretty=True)


def train_bpe(texts: Iterable[str], vocab_size: int, control: Sequence[str] = (BOS,)) -> BpeTokenizer:
    """Learn merges from texts until the vocabulary is full or no pair repeats.

    Args:
        texts: documents, read once.
        vocab_size: tokens at most, the 256 bytes and the control tokens included.
        control: control tokens, `<bos>` first; they get the first ids.
    """
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers

    fast: Any = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(control),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fast.train_from_iterator(texts, trainer=trainer)
    return BpeTokenizer(json.dumps(json.loads(fast.to_str())))
