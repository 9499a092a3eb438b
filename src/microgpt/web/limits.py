"""Limits on one request: the size of its body, the time to its answer, and how many are answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from microgpt.web.errors import refuse

#: seconds that the rest of a body is read and thrown away after an answer that did not wait for it
LINGER_S = 1.0
#: bytes of all bodies that are on their way
ARRIVING = 64 << 20


def header(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a request header; the name in small letters."""
    return [value for key, value in scope["headers"] if key == name]


def has_body(scope: Scope) -> bool:
    """Whether a request announces a body."""
    if scope["type"] != "http":
        return False
    return bool(header(scope, b"transfer-encoding")) or header(scope, b"content-length") not in ([], [b"0"])


class Linger:
    """Closes the connection after an answer that came before the request's body had ended, but not at once.

    Closing while data is still on its way resets the connection, and the client would lose the answer that says why.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_body(scope):
            await self.app(scope, receive, send)
            return
        ended = False

        async def receiving() -> Message:
            nonlocal ended
            message = await receive()
            ended = ended or message["type"] == "http.disconnect" or not message.get("more_body", False)
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                message = {**message, "headers": [*message.get("headers", []), (b"connection", b"close")]}
            elif message["type"] == "http.response.body" and not message.get("more_body", False) and not ended:
                await send({**message, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(LINGER_S):
                        while not ended:
                            await receiving()
                message = {"type": "http.response.body"}
            await send(message)

        await self.app(scope, receiving, sending)


class Load:
    """Answers 503 at once above a number of requests in progress, and 408 to one whose answer has not begun in time.

    Args:
        app: the layer below.
        concurrency: the most requests in progress; WebSockets do not count.
        answer_s: seconds until the answer's first byte; what streams may go on for as long as it likes.
        exempt: requests that are always let through, such as the one that asks after the server's health.
    """

    def __init__(self, app: ASGIApp, concurrency: int, answer_s: float, exempt: Callable[[Scope], bool]) -> None:
        self.app, self.concurrency, self.answer_s, self.exempt = app, concurrency, answer_s, exempt
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.exempt(scope):
            await self.app(scope, receive, send)
        elif self.running >= self.concurrency:
            message = "the server is answering as many requests as it can; ask again in a moment"
            await refuse(scope, send, 503, message, code="overloaded", headers={"retry-after": "1"})
        else:
            self.running += 1
            try:
                await self.answer(scope, receive, send)
            finally:
                self.running -= 1

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False
        clock = asyncio.timeout(self.answer_s)

        async def sending(message: Message) -> None:
            nonlocal begun
            if clock.expired():  # whatever the app says as it is cancelled comes too late
                return
            if not begun:
                begun = True
                clock.reschedule(None)
            await send(message)

        try:
            async with clock:
                await self.app(scope, receive, sending)
        except TimeoutError:
            if begun or not clock.expired():
                raise
            message = f"no answer within {self.answer_s:g} seconds; ask for less"
            await refuse(scope, send, 408, message, code="timeout")


class Body:
    """Takes a request's whole body before the layers below see it, so that a slow client keeps no place of theirs.

    A body over its limit is answered 413, by its declared length or as soon as more has come; 503 is the answer while
    all bodies on their way together fill too much memory.

    Args:
        app: the layer below.
        limit: bytes that a path's body may have.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self.app, self.limit = app, limit
        self.arriving = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not has_body(scope):
            await self.app(scope, receive, send)
            return
        limit = self.limit(scope["path"])
        declared = int(b"".join(header(scope, b"content-length")[:1])[:18] or 0)  # 18 digits are over any limit
        body, more = bytearray(), True
        try:
            while more and max(declared, len(body)) <= limit and self.arriving <= ARRIVING:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return
                body += message.get("body", b"")
                self.arriving += len(message.get("body", b""))
                more = message.get("more_body", False)
        finally:
            self.arriving -= len(body)
        if max(declared, len(body)) > limit:
            message = f"the body is over the limit of {limit:,} bytes"
            await refuse(scope, send, 413, message, code="body_too_large")
        elif more:
            message = "the server is taking as many large bodies as it can; ask again in a moment"
            await refuse(scope, send, 503, message, code="overloaded", headers={"retry-after": "1"})
        else:
            await self.app(scope, replayed(bytes(body), receive), send)


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that has been taken, and after it whatever else comes."""
    given = False

    async def receiving() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving
