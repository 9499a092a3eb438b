"""How OpenAI's API writes answers: whole, and as the events of a stream.

The events are put together from texts, because a stream is thousands of them and no more than a few words change.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any

from microgpt.inference.engine import Token
from microgpt.serving.ticket import Part
from microgpt.tokenizer.base import Tokenizer

LEAST = -9999.0  # what OpenAI gives for a token that has no chance; JSON knows no infinity
quoted = json.JSONEncoder().encode


class Usage:
    """What a request has cost.

    Args:
        prompt: tokens that were read.
        dropped: tokens of the conversation that did not fit and were left out.
    """

    def __init__(self, prompt: int, dropped: int = 0) -> None:
        self.prompt, self.dropped = prompt, dropped

    def of(self, tokens: int) -> dict[str, int]:
        """The usage with the number of tokens that were written."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": tokens,
            "total_tokens": self.prompt + tokens,
            "microgpt_tokens_dropped": self.dropped,
        }


class Completion:
    """Answers of `/v1/completions`.

    Args:
        model: as the client knows it.
        tokenizer: spells tokens.
        usage: of the request.
        logprobs: whether probabilities were asked for.
        with_usage: whether a stream ends with the usage.
    """

    kind, chunk, letters = "text_completion", "text_completion", "cmpl"

    def __init__(
        self, model: str, tokenizer: Tokenizer, usage: Usage, logprobs: bool = False, with_usage: bool = False
    ) -> None:
        self.tokenizer, self.usage, self.logprobs, self.with_usage = tokenizer, usage, logprobs, with_usage
        self.facts = {"id": f"{self.letters}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self.head = f"data: {quoted({**self.facts, 'object': self.chunk, 'system_fingerprint': None})[:-1]}, "
        self.tail = ', "usage": null}\n\n' if with_usage else "}\n\n"

    def event(self, part: Part) -> str:
        """The event of a part."""
        finish = quoted(part.finish or None)
        about = quoted(self.told(part.tokens)) if self.logprobs else "null"
        return (
            f'{self.head}"choices": [{{"index": {part.index}, {self.said(part)}, "logprobs": {about}, '
            f'"finish_reason": {finish}}}]{self.tail}'
        )

    def end(self, tokens: int) -> str:
        """The events behind the last part."""
        usage = f'{self.head}"choices": [], "usage": {quoted(self.usage.of(tokens))}}}\n\n' if self.with_usage else ""
        return f"{usage}data: [DONE]\n\n"

    def whole(self, parts: Sequence[Part]) -> dict[str, Any]:
        """A whole answer."""
        choices = [
            {
                "index": part.index,
                **self.content(part),
                "logprobs": self.told(part.tokens) if self.logprobs else None,
                "finish_reason": part.finish,
            }
            for part in parts
        ]
        usage = self.usage.of(sum(part.count for part in parts))
        return {**self.facts, "object": self.kind, "system_fingerprint": None, "choices": choices, "usage": usage}

    def said(self, part: Part) -> str:
        """A part's text in an event."""
        return f'"text": {quoted(part.text)}'

    def content(self, part: Part) -> dict[str, Any]:
        """A part's text in a whole answer."""
        return {"text": part.text}

    def told(self, tokens: Sequence[tuple[Token, int]]) -> dict[str, Any]:
        """Probabilities of tokens."""
        return {
            "tokens": [self.name(token.id) for token, _ in tokens],
            "token_logprobs": [bounded(token.logprob) for token, _ in tokens],
            "top_logprobs": [{self.name(i): bounded(p) for i, p in token.top} for token, _ in tokens],
            "text_offset": [at for _, at in tokens],
        }

    def name(self, token: int) -> str:
        """A token as text; the bytes of one that is no whole text, so that two of them stay two."""
        raw = self.tokenizer.raw(token)
        try:
            return raw.decode("utf-8") or self.tokenizer.token_text(token)
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class Chat(Completion):
    """Answers of `/v1/chat/completions`."""

    kind, chunk, letters = "chat.completion", "chat.completion.chunk", "chatcmpl"
    greeted: frozenset[int] = frozenset()

    def said(self, part: Part) -> str:
        if part.index not in self.greeted:
            self.greeted |= {part.index}
            return f'"delta": {{"role": "assistant", "content": {quoted(part.text)}}}'
        return f'"delta": {{"content": {quoted(part.text)}}}' if part.text or not part.finish else '"delta": {}'

    def content(self, part: Part) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": part.text, "refusal": None}}

    def told(self, tokens: Sequence[tuple[Token, int]]) -> dict[str, Any]:
        return {
            "content": [
                {
                    **self.entry(token.id, token.logprob),
                    "top_logprobs": [self.entry(i, p) for i, p in token.top],
                }
                for token, _ in tokens
            ],
            "refusal": None,
        }

    def entry(self, token: int, logprob: float | None) -> dict[str, Any]:
        """A token with its probability; the bytes tell what half a character is."""
        raw = self.tokenizer.raw(token)
        text = raw.decode("utf-8", "replace") if raw else self.tokenizer.token_text(token)
        return {"token": text, "logprob": bounded(logprob), "bytes": list(raw) if raw else None}


def bounded(logprob: float | None) -> float:
    """A log-probability that JSON can say; NaN has no chance either."""
    return logprob if logprob is not None and logprob > LEAST else LEAST
