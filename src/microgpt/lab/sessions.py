"""All sessions of a server: limited in number, ended when nobody has looked at them for long."""

from __future__ import annotations

import asyncio
import secrets
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from microgpt.lab.link import Link
from microgpt.lab.log import Log
from microgpt.lab.messages import Fork, Start, Trace
from microgpt.lab.refusals import Refusal
from microgpt.lab.replay import Replay
from microgpt.lab.session import Session

SWEEP_S = 5.0
#: seconds after a start until the next worker is made ready: the new session has the machine for itself
SPARE_AFTER_S = 3.0
#: workers without a session that are kept; starting one takes seconds of a core
SPARES = 2


@dataclass(frozen=True)
class Limits:
    """How much a server takes on.

    Attributes:
        sessions: at the same time, each a process of some hundred megabytes.
        expire_s: seconds after which a session that does not run, and that no browser watches, is ended.
        viewers: browsers of all sessions.
        spare: keep a worker ready, so that a session starts at once.
        tracking: kind, uri and experiment of `microgpt.train`'s tracking group, for sessions that end.
    """

    sessions: int = 8
    expire_s: float = 3600.0
    viewers: int = 64
    spare: bool = True
    tracking: str = "off"
    tracking_uri: str = ""


class Sessions:
    """The sessions by id.

    Args:
        limits: of the server.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.all: dict[str, Log] = {}
        self._beginning = 0
        self._spares: list[Link] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to sweep, and make a first worker ready."""
        self._later(self._sweep())
        if self.limits.spare:
            await self._make_spare()

    async def close(self) -> None:
        """End every session."""
        for task in list(self._tasks):
            task.cancel()
        closing = [session.close() for session in self.all.values()]
        closing += [link.close() for link in self._spares]
        self.all.clear()
        await asyncio.gather(*closing, return_exceptions=True)

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(SWEEP_S, self.limits.expire_s / 2))
            now = time.monotonic()
            for session in list(self.all.values()):
                idle = not session.running and not session.viewers
                if session.failed or (idle and now - session.touched > self.limits.expire_s):
                    await self.remove(session)

    async def _make_spare(self, after: float = 0.0) -> None:
        await asyncio.sleep(after)
        if not self._spares:
            link = Link()
            self._spares.append(link)
            await link.start()

    async def link(self) -> Link:
        """A worker: the one that is ready, or a new one."""
        spares = [link for link in self._spares if not link.closed]
        self._spares = spares[1:]
        if self.limits.spare and not self._spares:
            self._later(self._make_spare(SPARE_AFTER_S))
        if spares:
            return spares[0]
        made = Link()
        await made.start()
        return made

    async def _give_back(self, link: Link) -> None:
        """A worker whose session is over: it is the next one's, or ends."""
        link.rest()
        if self.limits.spare and len(self._spares) < SPARES and not link.closed:
            with suppress(Refusal):
                await link.ask("leave")
                if len(self._spares) < SPARES and not link.closed:
                    self._spares.append(link)
                    return
        await link.close()

    def get(self, session_id: str) -> Log:
        """A session.

        Raises:
            Refusal: there is none of that id.
        """
        found = self.all.get(session_id)
        if found is None:
            raise Refusal(404, "there is no such session; it may have expired")
        found.touched = time.monotonic()
        return found

    def family(self, session: Log) -> list[Log]:
        """A session's origin and all forks, oldest first."""

        def root(one: Log) -> str:
            seen: set[str] = set()
            at = one
            while at.known.parent is not None and at.session_id not in seen:
                seen.add(at.session_id)
                above = self.all.get(at.known.parent.session_id)
                if above is None:
                    return at.known.parent.session_id
                at = above
            return at.session_id

        origin = root(session)
        return [one for one in self.all.values() if root(one) == origin]

    def make_room(self) -> None:
        """Refuse where there are too many sessions.

        Raises:
            Refusal: there are.
        """
        if len(self.all) + self._beginning >= self.limits.sessions:
            raise Refusal(429, f"there are {self.limits.sessions} sessions already; close one first")

    async def begun(self, op: str, **values: Any) -> Session:
        """A new session of a worker.

        Raises:
            Refusal: too many sessions, or what was asked for cannot be.
        """
        self.make_room()
        self._beginning += 1
        try:
            link = await self.link()
            session = Session(secrets.token_hex(8), link)
            tracking = {"kind": self.limits.tracking, "uri": self.limits.tracking_uri}
            try:
                await session.begin(op, tracking=tracking, **values)
            except BaseException:
                await self._give_back(link)
                raise
            self.all[session.session_id] = session
        finally:
            self._beginning -= 1
        return session

    async def start(self, asked: Start) -> Session:
        """A fresh session."""
        return await self.begun("begin", start=asked.model_dump(exclude_unset=True))

    async def fork(self, origin: Log, asked: Fork) -> Session:
        """A session that goes on from a step of another."""
        self.make_room()
        made = await self.begun("fork", fork=await origin.offered(asked))
        origin.forked(made)
        return made

    async def attach(self, run: Path) -> Session:
        """A session that follows a run; one that follows it already is that."""
        for session in self.all.values():
            if isinstance(session, Session) and session.known.kind == "run" and session.known.run == str(run):
                return session
        return await self.begun("attach", run=str(run))

    def replay(self, trace: Trace) -> Replay:
        """A session from a file.

        Raises:
            Refusal: too many sessions, or the file is damaged.
        """
        self.make_room()
        session = Replay(secrets.token_hex(8), trace)
        self.all[session.session_id] = session
        return session

    async def remove(self, session: Log) -> None:
        """End a session; its run folder stays."""
        self.all.pop(session.session_id, None)
        session.part()
        if isinstance(session, Session):
            await self._give_back(session.link)
