"""What a worker streams: the newest frame of each watched panel, made only when somebody has taken the last one."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from microgpt.errors import MicrogptError
from microgpt.lab.frames import Pipe, packed
from microgpt.lab.refusals import told
from microgpt.lab.studio import Studio

#: while it trains, looks for the page take at most a quarter of the time
REST = 3.0
#: panels that are about the last update
MOVED = {"parameters", "matrix", "weight"}


@dataclass
class Watched:
    """A panel that streams.

    Attributes:
        wanted: somebody has taken the last frame.
        sent: the step of the last frame.
        refused: its client knows why there is none.
        at: when the last one was made.
    """

    panel: str
    params: dict[str, Any]
    every_s: float
    wanted: bool = True
    sent: int = -1
    refused: bool = False
    at: float = field(default=-math.inf)


class Streams:
    """The panels that are watched, by the server's key."""

    def __init__(self) -> None:
        self._watched: dict[str, Watched] = {}
        self._rest_until = 0.0

    @property
    def need_movement(self) -> bool:
        """Whether a panel shows the update that a step makes."""
        return any(w.panel in MOVED for w in self._watched.values())

    def watch(self, panels: dict[str, dict[str, Any]], fresh: Sequence[str]) -> None:
        """Watch these panels and no others; the fresh ones are to be sent at once."""
        former = self._watched
        self._watched = {
            key: former.get(key) or Watched(entry["panel"], entry["params"], 1 / entry["hz"])
            for key, entry in panels.items()
        }
        for key in fresh:
            if key in self._watched:
                self._watched[key].sent, self._watched[key].wanted = -1, True

    def want(self, keys: Sequence[str]) -> None:
        """Somebody has taken the last frame of these."""
        for key in keys:
            if key in self._watched:
                self._watched[key].wanted = True

    def again(self) -> None:
        """Send all: the session was reset."""
        for watched in self._watched.values():
            watched.sent, watched.wanted = -1, True

    def due(self, step: int, running: bool) -> list[tuple[float, str]]:
        """Keys of the panels that a frame is to be sent of, each behind the time of its last one."""
        now = time.monotonic()
        if not self._watched or (running and now < self._rest_until):
            return []
        return [
            (w.at, key)
            for key, w in self._watched.items()
            if w.wanted and w.sent != step and (not running or now - w.at >= w.every_s)
        ]

    def send(self, studio: Studio, pipe: Pipe, running: bool) -> None:
        """Send the frame that has waited longest."""
        now, step = time.monotonic(), studio.live.step
        _, key = min(self.due(step, running))
        watched = self._watched[key]
        watched.at, watched.wanted, watched.sent = now, False, step
        try:
            at, data, tensors = studio.look(watched.panel, None, watched.params)
        except MicrogptError as error:
            watched.wanted = True  # it may be there at a later step: nothing has moved at step 0
            if not watched.refused:
                pipe.send({"event": "unseen", "key": key, "detail": told(error)})
            watched.refused = True
            return
        listed, blob = packed(tensors)
        message = {"event": "frame", "key": key, "panel": watched.panel, "step": at, "data": data, "tensors": listed}
        pipe.send(message, blob)
        self._rest_until = time.monotonic() + REST * (time.monotonic() - now)
