"""One connection of uvicorn's, cut when its client keeps it waiting: uvicorn itself has no read time-out."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from microgpt.web.access import HEADERS
from microgpt.web.errors import error_body

#: seconds without progress after which a connection is cut: idle, or with its header or its body on the way
PATIENCE_S = 7.5
#: bytes of a body that count as progress (a slower client than 64 KiB in that time is too slow)
PIECE = 64 << 10
#: bytes that may come without completing a header or a piece of a body
HEADER_LIMIT = 64 << 10
#: seconds in which a client must take something of an answer that waits for it
STALL_S = 20.0


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection with deadlines and limits; `server.Listener` calls `check` twice a second.

    Args:
        most: open connections; one more is told 503 and closed.
    """

    def __init__(self, *args: Any, most: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.most = most
        self.loose = 0  # bytes that have come since the last header or piece of a body was complete
        self.body_bytes = 0
        self.in_header = True
        self.messages = 0
        self.phase = ("", 0)
        self.since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        super().connection_made(transport)
        if len(self.connections) > self.most:
            self.say(503, "too many connections are open; try again in a moment")

    def data_received(self, data: bytes) -> None:
        self.loose += len(data)
        super().data_received(data)
        if self.loose > HEADER_LIMIT and not self.transport.is_closing():
            self.say(431, f"the header is over the limit of {HEADER_LIMIT:,} bytes")

    def on_message_begin(self) -> None:
        self.in_header = True
        self.messages += self.messages > 0  # the first has been waited for since the connection was made
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_header:  # what trails a chunked body has no say
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self.in_header = False
        self.loose = self.body_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self.loose = 0
        self.body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self.loose = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self.messages += 1
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        self.say(400, "this is no HTTP request")

    def say(self, status: int, message: str) -> None:
        """Answer for the app, unless an answer is on its way, and close."""
        if self.idle or not self.cycle.response_started:
            body = json.dumps(error_body("", status, message)).encode()
            fields = {**HEADERS, b"content-type": b"application/json", b"content-length": b"%d" % len(body)}
            fields |= {b"connection": b"close"} | ({b"retry-after": b"1"} if status == 503 else {})
            lines = b"".join(b"%s: %s\r\n" % field for field in fields.items())
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + body)
        self.transport.close()

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        cycle = cast("RequestResponseCycle | None", self.cycle)  # none before the first request
        return cycle is None or cycle.response_complete

    def waiting_for(self) -> tuple[str, int]:
        """What the client owes this connection, with a number that changes when some of it comes."""
        unsent = self.transport.get_write_buffer_size()
        if unsent:
            return "answer taken", unsent
        if self.idle:
            return "header", self.messages
        if self.cycle.more_body and not self.flow.read_paused:
            return "body", self.body_bytes // PIECE
        return "", 0

    def check(self, now: float) -> None:
        """Cut the connection where its client has owed the same for too long.

        Args:
            now: the time in seconds on any clock that never goes back.
        """
        phase = self.waiting_for()
        if phase != self.phase:
            self.phase, self.since = phase, now
        elif phase[0] and now - self.since > (STALL_S if phase[0] == "answer taken" else PATIENCE_S):
            self.transport.abort()
