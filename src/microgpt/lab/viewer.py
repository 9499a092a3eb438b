"""One browser: what it is still to be told, in bounded memory however slowly it reads."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from typing import TYPE_CHECKING, Any

from microgpt.lab.frames import frame
from microgpt.lab.messages import Subscribe

if TYPE_CHECKING:
    from microgpt.lab.log import Log

#: messages that wait for a browser; of samples and the like the oldest are left out
MOST_WAITING = 64
MOST_ROWS = 1000
#: train_step events that are worked out ahead of a browser's reading
EVENTS = 32
MOST_QUESTIONS = 16


class Viewer:
    """A WebSocket's outgoing side.

    Scalars are not queued but read from the session's log at this viewer's place in it, so that none is lost and
    none is kept twice; of each panel only the newest frame waits.

    Attributes:
        subscribed: whether it speaks this protocol, or is a client of prior art.
        panels: what it watches: the worker's key to its own.
        questions: answers that it waits for.
    """

    def __init__(self, session: Log) -> None:
        self.session = session
        self.subscribed = False
        self.panels: dict[str, str] = {}
        self.questions = 0
        self._place = len(session.rows)
        self._waiting: deque[tuple[int, str | bytes]] = deque(maxlen=MOST_WAITING)
        self._frames: dict[str, bytes] = {}
        self._wake = asyncio.Event()

    def tell(self, message: dict[str, Any]) -> None:
        """A JSON message, after the rows that were there before it."""
        self._waiting.append((len(self.session.rows), json.dumps(message, allow_nan=False)))
        self._wake.set()

    def answer(self, content: bytes) -> None:
        """A frame that was asked for, as soon as can be."""
        self._waiting.append((0, content))
        self._wake.set()

    def show(self, key: str, header: dict[str, Any], payload: bytes) -> None:
        """The newest frame of a watched panel."""
        if key in self.panels:
            self._frames[key] = frame({**header, "key": self.panels[key]}, payload)
            self._wake.set()

    def wake(self) -> None:
        """There are new rows."""
        self._wake.set()

    def again(self) -> None:
        """The last row was replaced."""
        self._place = min(self._place, max(0, len(self.session.rows) - 1))
        self._wake.set()

    def begin_again(self) -> None:
        """The session was reset."""
        self._place = 0
        self._waiting = deque(((0, content) for _, content in self._waiting), MOST_WAITING)
        self._frames.clear()
        self._wake.set()

    def subscribe(self, asked: Subscribe, keys: dict[str, str]) -> None:
        """Watch panels instead of what was watched before.

        Args:
            asked: by the client.
            keys: the worker's key of each panel to the client's.
        """
        session = self.session
        if asked.since is not None:
            same = asked.generation in (None, session.generation)
            self._place = session.place_after(asked.since) if same else 0
        elif not self.subscribed:
            self._place = len(session.rows)
        self.subscribed, self.panels = True, keys
        self._frames = {key: content for key, content in self._frames.items() if key in keys}
        self._wake.set()

    async def write(self, socket: Any) -> None:
        """Send until the socket closes; each `await` lasts as long as the browser takes."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._place < len(self.session.rows):
                self._place = min(self._place, len(self.session.rows))
                if self._waiting and self._waiting[0][0] <= self._place:
                    _, content = self._waiting.popleft()
                    await (socket.send_text(content) if isinstance(content, str) else socket.send_bytes(content))
                else:
                    await self._write_rows(socket)
            for key in list(self._frames):
                content = self._frames.pop(key, None)
                if content is not None:
                    await socket.send_bytes(content)
                    self.session.taken(key)

    async def _write_rows(self, socket: Any) -> None:
        """The next rows, up to where a message waits."""
        rows = self.session.rows
        end = min(len(rows), self._waiting[0][0]) if self._waiting else len(rows)
        part = rows[self._place : min(end, self._place + (MOST_ROWS if self.subscribed else 1))]
        self._place += len(part)
        if self.subscribed:
            await socket.send_text(json.dumps(self.session.scalars(part)))
            return
        event, full = self.session.event(part[0])
        await socket.send_text(json.dumps(event))
        if full:
            self.session.seen()
