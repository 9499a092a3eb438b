"""A session with a worker: what it says is kept and passed on, what is asked of it is passed down."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any

import numpy as np

from microgpt.lab.frames import Floats, unpacked
from microgpt.lab.link import Link
from microgpt.lab.log import Log, Row
from microgpt.lab.messages import Fork, Inspect, Metadata, Place, Run, Sample, Watch
from microgpt.lab.viewer import EVENTS

MOST_EVENTS = 64
MOST_SAMPLES = 200


class Session(Log):
    """A session that trains, or follows a run.

    Args:
        session_id: its name in every address.
        link: to its worker.
    """

    def __init__(self, session_id: str, link: Link) -> None:
        super().__init__(session_id)
        self.link = link
        self._events: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._watched: dict[str, dict[str, Any]] = {}
        link.heard, link.lost = self._heard, self._lost

    def event(self, row: Row) -> tuple[dict[str, Any], bool]:
        found = self._events.get(int(row[0] or 0))
        return super().event(row) if found is None else (found, True)

    # ---- what the worker says

    def _heard(self, message: dict[str, Any], blob: bytes) -> None:
        event = message.get("event")
        if event == "rows":
            self._add(message["rows"], message["recorded"])
        elif event == "train_step":
            self._events[message["message"]["step"]] = message["message"]
            while len(self._events) > MOST_EVENTS:
                self._events.popitem(last=False)
        elif event == "status":
            self.running = bool(message["running"])
            if self.metadata is not None:  # a run that is followed says it before it has begun
                self.tell(self.status())
        elif event == "samples":
            self._keep(message["message"])
        elif event == "frame":
            header = self.header(message["panel"], message["step"], message["data"], message["tensors"])
            for viewer in self.viewers:
                viewer.show(message["key"], header, blob)
        elif event in ("fault", "unseen"):
            self.tell({"v": 1, "type": "error", "detail": message["detail"], "id": None})

    def _add(self, rows: list[Row], recorded: list[int]) -> None:
        if rows and self.rows and rows[0][0] == self.rows[-1][0]:
            self.rows[-1] = rows[0]  # it has got its validation loss
            for viewer in self.viewers:
                viewer.again()
            rows = rows[1:]
        self.rows += rows
        if self.metadata is None:  # begin() goes on from here
            return
        known, step = self.known, int(self.rows[-1][0] or 0)
        known.step, known.recorded = step, recorded
        known.steps_remaining, known.progress = max(0, known.num_steps - step), min(1.0, step / known.num_steps)
        known.completed = step >= known.num_steps
        self.touched = time.monotonic()
        for viewer in self.viewers:
            viewer.wake()

    def _keep(self, message: dict[str, Any]) -> None:
        self.samples = [*self.samples, message][-MOST_SAMPLES:]
        self.tell(message)

    def _lost(self) -> None:
        self.running, self.failed = False, True
        self.tell({"v": 1, "type": "error", "detail": "the session's process has ended", "id": None})

    # ---- viewers

    def watched(self, watch: Watch) -> str:
        key = super().watched(watch)
        entry = self._watched.setdefault(key, {"panel": watch.panel, "params": watch.params, "hz": watch.hz})
        entry["hz"] = max(entry["hz"], watch.hz)
        return key

    def tune(self, fresh: list[str]) -> None:
        wanted = {key for viewer in self.viewers for key in viewer.panels}
        self._watched = {key: entry for key, entry in self._watched.items() if key in wanted}
        plain = any(not viewer.subscribed for viewer in self.viewers)
        self.link.say("watch", panels=self._watched, fresh=fresh, events=EVENTS if plain else 0)

    def taken(self, key: str) -> None:
        self.link.say("want", keys=[key])

    def seen(self) -> None:
        self.link.say("want", events=1)

    # ---- requests

    async def begin(self, op: str, **values: Any) -> None:
        """Let the worker begin.

        Raises:
            Refusal: what was asked for cannot be.
        """
        answer, _ = await self.link.ask(op, session_id=self.session_id, **values)
        self.metadata = Metadata.model_validate(answer["metadata"])
        if self.rows:  # of a run that is followed: they have come before
            self._add([], self.metadata.recorded)

    async def weights(self, step: int | None) -> tuple[int, dict[str, Floats], float]:
        """All weights at a step, and their validation loss: step, weights by name, loss."""
        answer, blob = await self.link.ask("weights", step=step)
        numbers = np.frombuffer(blob, dtype="<f4")
        return int(answer["step"]), unpacked(answer["tensors"], numbers), float(answer["loss"])

    async def one_step(self) -> dict[str, Any]:
        return (await self.link.ask("step"))[0]["event"]

    async def run(self, asked: Run) -> int:
        answer, _ = await self.link.ask("run", steps=asked.steps, delay_ms=asked.delay_ms, to_end=asked.to_end)
        return int(answer["steps"])

    async def pause(self) -> None:
        await self.link.ask("pause")

    async def reset(self) -> None:
        answer, _ = await self.link.ask("reset")
        self.rows, self.samples, self.running = [], [], False
        self._events.clear()
        self.metadata = Metadata.model_validate(answer["metadata"])
        for viewer in self.viewers:
            viewer.begin_again()
            viewer.tell(self.described())
            viewer.tell(self.status())

    async def sample(self, asked: Sample) -> dict[str, Any]:
        return (await self.link.ask("sample", sample=asked.model_dump()))[0]["message"]

    async def inspect(self, asked: Inspect) -> tuple[dict[str, Any], bytes]:
        answer, blob = await self.link.ask("inspect", panel=asked.panel, step=asked.step, params=asked.params)
        return self.header(asked.panel, answer["step"], answer["data"], answer["tensors"]), blob

    async def offered(self, asked: Fork) -> dict[str, Any]:
        answer, _ = await self.link.ask("snapshot", step=asked.step)
        kept = {k: v for k, v in answer.items() if k != "re"}
        units = [*kept["off"], *(unit.model_dump() for unit in asked.off)]
        place = Place(session_id=self.session_id, step=kept["step"]).model_dump()
        changed = {"learning_rate": asked.learning_rate, "num_steps": asked.num_steps, "data": asked.data}
        return {**kept, **changed, "off": units, "name": asked.name, "parent": place}

    async def frames(self) -> list[dict[str, Any]]:
        return (await self.link.ask("trace"))[0]["frames"]

    async def close(self) -> None:
        self.link.lost = lambda: None
        await self.link.close()
