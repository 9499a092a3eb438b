"""The server's end of a worker: its process, requests and their answers, and what it says unasked."""

from __future__ import annotations

import asyncio
import itertools
import json
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from microgpt.lab.frames import PREFIX
from microgpt.lab.refusals import Refusal

#: seconds in which a worker must answer; knocking out every neuron of a large model takes some
PATIENCE_S = 120.0
Heard = Callable[[dict[str, Any], bytes], None]


class Link:
    """A worker process and the socket to it.

    Attributes:
        heard: called with each message that answers no request, and its bytes.
        lost: called when the process has ended.
    """

    def __init__(self) -> None:
        self.heard: Heard
        self.lost: Callable[[], None]
        self.rest()
        self.closed = False
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[tuple[dict[str, Any], bytes]]] = {}
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start the process; it is ready some seconds later and keeps requests until then."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "microgpt.lab.worker", str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )  # fmt: skip
        reader, self._writer = await asyncio.open_connection(sock=ours)
        self._reading = asyncio.create_task(self._read(reader))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            with suppress(asyncio.IncompleteReadError, OSError):
                while True:
                    length, more = PREFIX.unpack(await reader.readexactly(PREFIX.size))
                    message = json.loads(await reader.readexactly(length))
                    blob = await reader.readexactly(more)
                    waiting = self._waiting.pop(message.get("re", -1), None)
                    if waiting is None:
                        self.heard(message, blob)
                    elif not waiting.done():
                        waiting.set_result((message, blob))
        finally:
            self._end()

    def _end(self) -> None:
        """Nothing more will come."""
        self.closed = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(Refusal(503, "the session's process has ended; start another session"))
        self._waiting.clear()
        self.lost()

    def say(self, op: str, **values: Any) -> None:
        """Send what needs no answer."""
        self._send({"op": op, **values})

    async def ask(self, op: str, **values: Any) -> tuple[dict[str, Any], bytes]:
        """A request and its answer.

        Raises:
            Refusal: it is not granted, or the process is gone.
        """
        if self.closed:
            raise Refusal(503, "the session's process has ended; start another session")
        number = next(self._numbers)
        waiting = self._waiting[number] = asyncio.get_running_loop().create_future()
        self._send({"op": op, "id": number, **values})
        try:
            async with asyncio.timeout(PATIENCE_S):
                answer, blob = await waiting
        except TimeoutError:
            raise Refusal(503, "the session is busy; ask again in a moment") from None
        finally:
            self._waiting.pop(number, None)
        if "error" in answer:
            raise Refusal(int(answer["status"]), str(answer["error"]))
        return answer, blob

    def _send(self, message: dict[str, Any]) -> None:
        if self._writer is not None and not self.closed:
            text = json.dumps(message).encode()
            self._writer.write(PREFIX.pack(len(text), 0) + text)

    def rest(self) -> None:
        """Tell nobody any more."""
        self.heard = lambda message, blob: None
        self.lost = lambda: None

    async def close(self, seconds: float = 5.0) -> None:
        """End the process: it closes its run first, and is killed if that takes too long."""
        if self._writer is not None:
            self._writer.close()
        process = self._process
        if process is None:
            return
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        if self._reading is not None:
            self._reading.cancel()
            with suppress(asyncio.CancelledError):
                await self._reading
