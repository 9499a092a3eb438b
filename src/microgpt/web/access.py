"""The outermost layer: a name for each request, headers on each answer, a line in the log, no traceback outside."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import Callable

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from microgpt.runtime import now_iso
from microgpt.web.errors import refuse

access_log = logging.getLogger("microgpt.access")
fault_log = logging.getLogger("microgpt.faults")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
#: the longest path that a line of the log repeats, in characters
LOGGED_PATH = 256
#: the status of a request whose client went before there was an answer, as nginx has it
GONE = 499
Observer = Callable[[Scope, int, float], None]
HEADERS = {
    b"content-security-policy": (
        b"default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
ANSWERS = {"http.response.start", "websocket.http.response.start", "websocket.accept"}


def request_id(scope: Scope) -> str:
    """The client's `X-Request-ID` where it is a plain word of at most 64 characters, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode("ascii")
    return uuid.uuid4().hex


class Access:
    """An ASGI layer that wraps all others.

    The request's name is in `scope["state"]["request_id"]` and in the answer's `X-Request-ID`; the security headers
    are set where the app has set none of its own. The log gets one JSON line a request, without query or headers.
    An exception that no one caught becomes a 500 without details; its traceback goes to the log `microgpt.faults`.

    Args:
        app: the layer below.
        observed: called at the end of each request with its scope, status and seconds.
    """

    def __init__(self, app: ASGIApp, observed: Observer | None = None) -> None:
        self.app, self.observed = app, observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        name = scope.setdefault("state", {})["request_id"] = request_id(scope)
        status, sent, begun = 0, 0, time.monotonic()

        async def sending(message: Message) -> None:
            nonlocal status, sent
            if message["type"] in ANSWERS:
                status = message.get("status", 101)
                message = {**message, "headers": with_security(message.get("headers", []), name)}
            sent += len(message.get("body") or b"")
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except asyncio.CancelledError:
            if status:
                raise
            await refuse(scope, sending, 503, "the server is stopping; ask again later", headers={"retry-after": "5"})
        except (ClientDisconnect, WebSocketDisconnect):
            pass  # no one is left to be told
        except Exception:
            fault_log.exception("request %s failed", name)
            if status:
                raise  # the answer has begun: whoever runs this app cuts the connection
            await refuse(scope, sending, 500, "internal error; the server's log has it under this X-Request-ID")
        finally:
            status, seconds = status or GONE, time.monotonic() - begun
            if self.observed:
                self.observed(scope, status, seconds)
            line = {
                "time": now_iso(),
                "id": name,
                "client": (scope.get("client") or ("",))[0],
                "method": scope.get("method", "WEBSOCKET"),
                "path": scope["path"][:LOGGED_PATH],
                "status": status,
                "ms": round(seconds * 1000, 1),
                "bytes": sent,
            }
            access_log.info("%s", json.dumps(line))  # which spells out every control character


def with_security(headers: list[tuple[bytes, bytes]], name: str) -> list[tuple[bytes, bytes]]:
    """The answer's headers with the request's name, and the security headers that the app has not set itself."""
    own = {key.lower() for key, _ in headers}
    added = [(key, value) for key, value in HEADERS.items() if key not in own]
    return [*headers, *added, (b"x-request-id", name.encode("ascii"))]
