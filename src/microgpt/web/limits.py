"""Limits on one request: the size of its body, the time to its answer, and how many are answered at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from microgpt.web.errors import refuse

#: seconds that the rest of a body is read and thrown away after an answer that did not wait for it
LINGER_S = 1.0


def header(scope: Scope, name: bytes) -> list[bytes]:
    """All values of a request header; the name in small letters."""
    return [value for key, value in scope["headers"] if key == name]


class Linger:
    """Closes the connection after an answer that came before the request's body had ended, but not at once.

    Closing while data is still on its way resets the connection, and the client would lose the answer that says why.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = header(scope, b"content-length") if scope["type"] == "http" else []
        chunked = scope["type"] == "http" and header(scope, b"transfer-encoding")
        if not chunked and length in ([], [b"0"]):
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
    """Answers 413 to a body over the limit: by its declared length, or as soon as more has come.

    Args:
        app: the layer below.
        limit: bytes that a path's body may have.
    """

    def __init__(self, app: ASGIApp, limit: Callable[[str], int]) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.limit(scope["path"])
        message = f"the body is over the limit of {limit:,} bytes"
        declared = b"".join(header(scope, b"content-length")[:1]) or b"0"
        if not declared.isdigit():
            await refuse(scope, send, 400, "Content-Length is not a number")
            return
        if int(declared[:18]) > limit:  # eighteen digits are over any limit, and a million would take their time
            await refuse(scope, send, 413, message, code="body_too_large")
            return
        seen, begun, refused = 0, False, False

        async def receiving() -> Message:
            nonlocal seen, refused
            if refused:
                return {"type": "http.disconnect"}
            piece = await receive()
            seen += len(piece.get("body", b""))
            if seen <= limit:
                return piece
            refused = True
            if not begun:
                await refuse(scope, send, 413, message, code="body_too_large")
            return {"type": "http.disconnect"}  # what the app makes of it is not sent

        async def sending(piece: Message) -> None:
            nonlocal begun
            if not refused:
                begun = True
                await send(piece)

        try:
            await self.app(scope, receiving, sending)
        except Exception:
            if not refused:
                raise
