"""What every tokenizer can do. User text never becomes a control token; control tokens are placed by id."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from microgpt import files

BOS, USER, ASSISTANT, SYSTEM, END_TURN = "<bos>", "<user>", "<assistant>", "<system>", "<end_turn>"
#: ends a text in imported models where another token begins it
EOS = "<eos>"
CHAT_TOKENS = (USER, ASSISTANT, SYSTEM, END_TURN)
Ids = npt.NDArray[np.int32]


class Tokenizer(abc.ABC):
    """Text to token ids and back.

    Attributes:
        kind: `char`, `bpe` or `cl100k`.
        vocab_size: number of ids; they run from 0 without a gap.
        control: control tokens by name, `<bos>` always among them.
    """

    kind: str
    vocab_size: int
    control: dict[str, int]

    @property
    def bos(self) -> int:
        """The id that surrounds documents."""
        return self.control[BOS]

    @property
    def ends(self) -> list[int]:
        """The ids that end a text: where one would begin, and `<eos>` where there is one."""
        return [self.control[name] for name in (EOS, BOS) if name in self.control]

    @property
    def is_chat(self) -> bool:
        """Whether the control tokens of conversations are there."""
        return END_TURN in self.control

    @abc.abstractmethod
    def encode_batch(self, texts: Sequence[str]) -> list[Ids]:
        """Token ids of each text, with no control token among them.

        Raises:
            DataError: a character has no token (char tokenizers only).
        """

    @abc.abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; control tokens decode to nothing, broken UTF-8 to replacement characters."""

    @abc.abstractmethod
    def token_text(self, token: int) -> str:
        """One token as people should see it."""

    @abc.abstractmethod
    def raw(self, token: int) -> bytes:
        """The bytes of text that a token stands for, part of a character perhaps; none for control tokens."""

    @abc.abstractmethod
    def token_bytes(self) -> npt.NDArray[np.int32] | None:
        """Bytes of text that each id stands for, shape [vocab_size], 0 for control tokens.

        None where a token can stand for unknown text (cl100k's UNK), so that bits per byte cannot be said.
        """

    @abc.abstractmethod
    def to_json(self) -> str:
        """The content of tokenizer.json."""

    @abc.abstractmethod
    def grown(self, control: Sequence[str]) -> Tokenizer:
        """The same tokenizer with further control tokens behind all ids; those that it has are left out."""

    def encode(self, text: str) -> list[int]:
        """Token ids of one text."""
        return self.encode_batch([text])[0].tolist()

    def save(self, path: Path) -> None:
        """Write tokenizer.json in one step."""
        files.write_text(path, self.to_json())
