"""A request between the event loop, which waits for it, and the model's thread, which writes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from microgpt.inference.engine import Finish, Job, Request, Token
from microgpt.inference.text import Writer
from microgpt.serving.refusal import Refusal
from microgpt.tokenizer.base import Tokenizer


@dataclass(frozen=True, slots=True)
class Part:
    """What a sequence has got since its last part.

    Attributes:
        index: which of the request's sequences.
        text: new characters, whole ones only.
        tokens: new tokens and the place in the text where each begins; empty where no probabilities were asked for.
        count: tokens of the sequence so far.
        finish: `stop` (the model ended it, or a stop text came), `length` or `cancelled`; empty while it goes on.
    """

    index: int
    text: str
    tokens: Sequence[tuple[Token, int]]
    count: int
    finish: str


class Ticket:
    """A request's sequences on their way.

    The event loop makes it, waits for its parts and may cancel it; all else is the worker's.

    Args:
        requests: the sequences.
        tokenizer: of the model.
        stream: whether parts are wanted as they come, or one a sequence at its end.
    """

    def __init__(self, requests: Sequence[Request], tokenizer: Tokenizer, stream: bool) -> None:
        self.stream, self.cancelled = stream, False
        self.choices = [Choice(self, i, request, tokenizer) for i, request in enumerate(requests)]
        self.open = len(self.choices)
        self.begun = time.monotonic()
        self.arrived: list[Part] = []
        self.fault: Refusal | None = None
        self.waiter: asyncio.Future[None] | None = None

    async def more(self) -> list[Part]:
        """All parts that have come since the last call; none when the last has been handed out.

        Raises:
            Refusal: the model's thread failed.
        """
        if self.open and not self.arrived:
            self.waiter = asyncio.get_running_loop().create_future()
            await self.waiter
        if self.fault is not None:
            raise self.fault
        parts, self.arrived = self.arrived, []
        return parts

    def arrive(self, part: Part | Refusal) -> int:
        """Take a part, or the end of all hope, from the worker, on the event loop; how many sequences it ends."""
        if isinstance(part, Refusal):
            self.fault, ended = part, self.open
        else:
            self.arrived.append(part)
            ended = int(bool(part.finish))
        self.open -= ended
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        return ended

    def cancel(self) -> None:
        """End the sequences before their next token; parts with the finish `cancelled` follow."""
        self.cancelled = True
        for choice in self.choices:
            if choice.job is not None:
                choice.job.cancel()


class Choice:
    """One sequence of a ticket, as the model's thread writes it."""

    def __init__(self, ticket: Ticket, index: int, request: Request, tokenizer: Tokenizer) -> None:
        self.ticket, self.index, self.request = ticket, index, request
        self.writer = Writer(tokenizer, request.sampling.stop)
        self.job: Job | None = None
        self.count = 0
        self.first = self.last = 0.0
        self.told: list[tuple[Token, int]] = []

    def take(self, event: Token | Finish) -> Part | None:
        """What an event of the engine's means to the client; None where that is nothing yet."""
        if isinstance(event, Finish):
            piece = self.writer.close()
            finish = "stop" if self.writer.stopped or event.reason == "end" else event.reason
            return self._part(piece if self.ticket.stream else self.writer.text, finish)
        if self.writer.stopped:  # drawn in the same step
            return None
        self.count += 1
        if self.request.top is not None:
            self.told.append((event, len(self.writer.text)))
        piece = self.writer.add(event.id)
        if self.writer.stopped and self.job is not None:
            self.job.cancel()
        return self._part(piece, "") if self.ticket.stream and (piece or self.told) else None

    def _part(self, text: str, finish: str) -> Part:
        told, self.told = self.told, []
        return Part(self.index, text, told, self.count, finish)
