"""Texts that go on from a prompt."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from microgpt.config.schema import SamplingConfig
from microgpt.errors import UsageError
from microgpt.inference.engine import Engine, Finish, Job, Request, Token
from microgpt.inference.text import Writer
from microgpt.tokenizer.base import Tokenizer


@dataclass(frozen=True)
class Sample:
    """One generated text.

    Attributes:
        prompt: what it goes on from.
        text: what the model wrote.
        tokens: how many tokens that was.
        finish: `end` (the model ended it), `stop` (a stop text came) or `length`.
    """

    prompt: str
    text: str
    tokens: int
    finish: str


def prompt_ids(tokenizer: Tokenizer, prompt: str, block_size: int) -> list[int]:
    """The ids after which a text begins: BOS and the prompt's.

    Raises:
        UsageError: they do not fit into the context.
    """
    ids = [tokenizer.bos, *(tokenizer.encode(prompt) if prompt else [])]
    if len(ids) >= block_size:
        raise UsageError(f"the prompt has {len(ids)} tokens, the context holds {block_size}", "shorten the prompt")
    return ids


class _Text:
    """A sample while it is written."""

    def __init__(self, engine: Engine, tokenizer: Tokenizer, request: Request) -> None:
        self.writer, self.tokens, self.finish = Writer(tokenizer, request.sampling.stop), 0, ""
        self.job: Job = engine.submit(request, self._take)

    def _take(self, event: Token | Finish) -> None:
        if isinstance(event, Token) and not self.writer.stopped:
            self.tokens += 1
            self.writer.add(event.id)
            if self.writer.stopped:
                self.job.cancel()
        elif isinstance(event, Finish):
            self.writer.close()
            self.finish = "stop" if self.writer.stopped else event.reason


def generate(
    engine: Engine, tokenizer: Tokenizer, sampling: SamplingConfig, prompt: str = "", samples: int | None = None
) -> Iterator[Sample]:
    """Texts that go on from a prompt, several at a time; the i-th is drawn with seed `sampling.seed + i`.

    Raises:
        UsageError: the prompt does not fit into the context.
    """
    ids = prompt_ids(tokenizer, prompt, engine.block_size)
    count = sampling.num_samples if samples is None else samples
    running: list[_Text] = []
    begun = 0
    try:
        for _ in range(count):
            while begun < count and len(running) < engine.slots:
                running.append(
                    _Text(engine, tokenizer, Request(ids, sampling, tokenizer.ends, sampling.seed + begun))
                )
                begun += 1
            while not running[0].finish:
                engine.step()
            text = running.pop(0)
            yield Sample(prompt, text.writer.text, text.tokens, text.finish)
    finally:
        for text in running:
            text.job.cancel()
        if running:
            engine.step()
