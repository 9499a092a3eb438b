"""Tokens become text as they come: whole characters only, cut before a stop text."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from microgpt.tokenizer.base import Tokenizer


class Writer:
    """The text of one sequence.

    Args:
        tokenizer: spells the tokens.
        stop: texts that end the sequence; none of them is shown.

    Attributes:
        text: what was handed out.
        stopped: whether a stop text came.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, [s for s in stop if s]
        self._bytes = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.text, self.stopped = "", False

    def add(self, token: int) -> str:
        """The characters that are certain after one more token; perhaps none."""
        return self._certain(self._bytes.decode(self._tokenizer.raw(token)))

    def close(self) -> str:
        """The characters that were held back, at the end of the sequence; nothing after a stop text."""
        if self.stopped:
            return ""
        piece = self._certain(self._bytes.decode(b"", True))
        if not self.stopped:
            piece += self._held
            self.text += self._held
            self._held = ""
        return piece

    def _certain(self, new: str) -> str:
        if not self._stop:
            self.text += new
            return new
        text = self._held + new
        at = min((p for s in self._stop if (p := text.find(s)) >= 0), default=-1)
        if at >= 0:
            self.stopped, piece, self._held = True, text[:at], ""
        else:
            keep = max((_overlap(text, s) for s in self._stop), default=0)
            piece, self._held = text[: len(text) - keep], text[len(text) - keep :]
        self.text += piece
        return piece


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text could be the beginning of a stop text."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
