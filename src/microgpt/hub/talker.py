"""One side of a conversation: a model, what was said, and the reply that is being written in a thread."""

from __future__ import annotations

import math
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from microgpt.config.schema import SamplingConfig
from microgpt.errors import MicrogptError

if TYPE_CHECKING:
    from microgpt.inference.chat import Reply
    from microgpt.inference.load import Model

TOP = 5
#: prior art's defaults of chat
SAMPLING = SamplingConfig(
    temperature=0.35, max_new_tokens=180, top_k=20, top_p=0.92, repetition_penalty=1.15, min_new_tokens=20,
    repeat_last_n=64,
)  # fmt: skip
LIMITS = {
    "temperature": (0.1, 1.8),
    "max_new_tokens": (20, 800),
    "top_k": (0, 200),
    "top_p": (0.05, 1.0),
    "repetition_penalty": (0.5, 2.0),
    "min_new_tokens": (0, 200),
    "repeat_last_n": (0, 512),
}


def moved(sampling: SamplingConfig, name: str, by: float) -> SamplingConfig:
    """A setting changed by a step, within its limits."""
    low, high = LIMITS[name]
    now = getattr(sampling, name)
    value = min(high, max(low, round(now + by, 4)))
    return replace(sampling, **{name: int(value) if isinstance(now, int) else value})


@dataclass(frozen=True)
class Said:
    """A token of a reply.

    Attributes:
        text: its own bytes as text.
        probability: by the model's own distribution.
        top: the likeliest tokens with their probabilities, best first.
    """

    text: str
    probability: float
    top: tuple[tuple[str, float], ...]


class Talker:
    """A model to talk to.

    Attributes:
        model: once it is loaded.
        name: of the model, for the screen.
        turns: what was said.
        reply: the one that is being written, or was last.
        busy: whether something is loaded or written.
        wrong: what went wrong last.
    """

    def __init__(self) -> None:
        self.model: Model | None = None
        self.name = ""
        self.turns: list[tuple[str, str]] = []
        self.reply: Reply | None = None
        self.busy = False
        self.wrong = ""
        self._cancelled = False
        self._drawn = 0

    @property
    def chats(self) -> bool:
        """Whether the model was trained on conversations; others go on from the last text alone."""
        return self.model is not None and self.model.tokenizer.is_chat

    def load(self, reference: str) -> None:
        """Load a model; to be called in a thread."""
        self.busy, self.wrong = True, ""
        try:
            from microgpt.inference.load import load
            from microgpt.tracking.registry import model_folder

            folder = model_folder(reference)
            self.model = load(folder, "auto", 1)
            self.name = short_name(folder)
            self.turns, self.reply = [], None
        except (MicrogptError, OSError, ValueError) as error:
            self.wrong = str(error)
        finally:
            self.busy = False

    def answer(self, sampling: SamplingConfig) -> None:
        """Write a reply to the last turn; to be called in a thread."""
        from microgpt.inference.chat import Reply, stream_reply, stream_text

        model = self.model
        if model is None or not self.turns:
            return
        self.reply = reply = Reply()
        self.busy, self.wrong, self._cancelled = True, "", False
        drawn = replace(sampling, seed=sampling.seed + self._drawn)
        self._drawn += 1
        pieces = (
            stream_reply(model.engine, model.tokenizer, self.turns, drawn, reply, TOP)
            if self.chats
            else stream_text(model.engine, model.tokenizer, self.turns[-1][1], drawn, reply, TOP)
        )
        try:
            with closing(pieces):  # pyright: ignore[reportArgumentType]
                for _ in pieces:
                    if self._cancelled:
                        reply.finish = "stopped"
                        break
            self.turns.append(("assistant", reply.text))
        except MicrogptError as error:
            self.wrong = str(error)
            self.turns.pop()
        finally:
            self.busy = False

    def stop(self) -> None:
        """End the reply after its next token."""
        self._cancelled = True

    def take_back(self) -> bool:
        """Forget the last reply, so that another can be drawn; False where there is none."""
        if self.turns and self.turns[-1][0] == "assistant":
            self.turns.pop()
            return True
        return False

    def tokens(self) -> list[Said]:
        """The last reply token by token."""
        if self.model is None or self.reply is None:
            return []
        spell = self.model.tokenizer.raw

        def text(token: int) -> str:
            return spell(token).decode("utf-8", "replace")

        return [
            Said(
                text(token.id),
                math.exp(token.logprob) if token.logprob is not None else math.nan,
                tuple((text(other), math.exp(p)) for other, p in token.top),
            )
            for token in list(self.reply.drawn)
        ]


def short_name(folder: Path) -> str:
    """Run and checkpoint."""
    if folder.parent.name == "checkpoints":
        return f"{folder.parent.parent.name} {folder.name}"
    return folder.name
