"""From a ticket to an answer: whole, or as a stream of server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from microgpt.serving.refusal import Refusal
from microgpt.serving.ticket import Part, Ticket
from microgpt.web.errors import error_body

HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),  # nginx would hold the tokens back
]


class Gone(Exception):
    """The client has closed the connection."""


@contextmanager
def attended(ticket: Ticket, receive: Receive) -> Generator[None]:
    """Cancels the ticket as soon as its client goes, and when the block is left early."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ticket.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    finally:
        watcher.cancel()
        if ticket.open:
            ticket.cancel()


async def whole(ticket: Ticket, receive: Receive) -> list[Part]:
    """The finished sequences of a ticket, in order.

    Raises:
        Refusal: the model's thread failed.
        Gone: the client went before the end.
    """
    found: list[Part] = []
    with attended(ticket, receive):
        while parts := await ticket.more():
            found.extend(parts)
    if any(part.finish == "cancelled" for part in found):
        raise Gone
    return sorted(found, key=lambda part: part.index)


class Shape(Protocol):
    """How the events of a stream are written."""

    def event(self, part: Part) -> str:
        """The event or events of a part."""
        ...

    def end(self, tokens: int) -> str:
        """The events at the end of a stream of that many tokens."""
        ...


class EventStream(Response):
    """A ticket as server-sent events; all parts that have come since the last write go out in one piece.

    Args:
        ticket: whose parts are sent.
        shape: how.
        limit_s: seconds after which the stream ends with an error event.
        ended: called with the number of tokens that were sent.
    """

    def __init__(self, ticket: Ticket, shape: Shape, limit_s: float, ended: Callable[[int], None]) -> None:
        self.status_code, self.background = 200, None
        self.ticket, self.shape, self.limit_s, self.ended = ticket, shape, limit_s, ended

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(text: str, more: bool = True) -> None:
            await send({"type": "http.response.body", "body": text.encode("utf-8"), "more_body": more})

        async def fail(status: int, message: str, code: str | None) -> None:
            body = json.dumps(error_body(scope["path"], status, message, code=code))
            await write(f"data: {body}\n\n", False)

        counts = [0] * len(self.ticket.choices)
        with attended(self.ticket, receive):
            await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
            try:
                async with asyncio.timeout(self.limit_s):
                    while parts := await self.ticket.more():
                        for part in parts:
                            counts[part.index] = part.count
                        await write("".join(map(self.shape.event, parts)))
                    await write(self.shape.end(sum(counts)), False)
            except TimeoutError:
                await fail(408, f"the answer was not complete within {self.limit_s:g} seconds", "timeout")
            except Refusal as refusal:
                await fail(refusal.status, refusal.message, refusal.code)
            except asyncio.CancelledError:  # the server has waited for this stream as long as it may
                with suppress(Exception):
                    await fail(503, "the server is stopping; ask again later", "stopping")
                raise
            finally:
                self.ended(sum(counts))
