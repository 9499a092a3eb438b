"""One WebSocket of uvicorn's whose client learns why it was closed; needs the package websockets."""

from __future__ import annotations

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from microgpt.web.limits import LINGER_S


class Socket(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, which after a message over the limit reads on for a moment before it closes.

    Closing while the rest of the message is on its way resets the connection, and the code 1009 would be lost.
    """

    def data_received(self, data: bytes) -> None:
        if self.conn.parser_exc is None:
            super().data_received(data)

    def handle_parser_exception(self) -> None:
        closing = self.conn.close_sent
        assert closing is not None
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)
