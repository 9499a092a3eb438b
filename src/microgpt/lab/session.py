"""A session as the server knows it: its worker, its log of scalars, the browsers that watch it."""

from __future__ import annotations

import bisect
import json
import time
from collections import OrderedDict
from typing import Any

from microgpt.lab.frames import frame, in_json
from microgpt.lab.link import Link
from microgpt.lab.messages import Fork, Inspect, Listed, Metadata, Place, Run, Sample, Subscribe
from microgpt.lab.panels import PANELS
from microgpt.lab.refusals import Refusal
from microgpt.lab.viewer import EVENTS, Viewer

COLUMNS = ["step", "loss", "learning_rate", "grad_norm", "step_ms", "tokens", "val_loss"]
MOST_EVENTS = 64
MOST_SAMPLES = 200
Row = list[float | None]


class Session:
    """A live session.

    Args:
        session_id: its name in every address.
        link: to its worker.
    """

    kind = "live"

    def __init__(self, session_id: str, link: Link) -> None:
        self.session_id, self.link = session_id, link
        self.metadata: Metadata | None = None
        self.running = self.failed = False
        self.rows: list[Row] = []
        self.samples: list[dict[str, Any]] = []
        self.viewers: set[Viewer] = set()
        self.touched = time.monotonic()
        self._events: OrderedDict[int, dict[str, Any]] = OrderedDict()
        self._watched: dict[str, dict[str, Any]] = {}
        link.heard, link.lost = self._heard, self._lost

    # ---- what it is

    @property
    def known(self) -> Metadata:
        """Its metadata.

        Raises:
            Refusal: it has not begun yet.
        """
        if self.metadata is None:
            raise Refusal(409, "the session has not begun yet")
        return self.metadata

    @property
    def generation(self) -> int:
        """Goes up with each reset."""
        return self.known.generation

    @property
    def step(self) -> int:
        """Updates done, as far as the server has heard."""
        return self.known.step

    def listed(self) -> Listed:
        """For the list of sessions."""
        known = self.known
        return Listed(
            session_id=self.session_id, running=self.running, step=known.step, num_steps=known.num_steps,
            clients=len(self.viewers), kind=known.kind, name=known.name, parent=known.parent,
        )  # fmt: skip

    def described(self) -> dict[str, Any]:
        """The session message."""
        metadata = self.known.model_dump(mode="json")
        return {"v": 1, "type": "session", "session_id": self.session_id, "metadata": metadata}

    def status(self) -> dict[str, Any]:
        """The run_status message."""
        message: dict[str, Any] = {"v": 1, "type": "run_status", "running": self.running}
        return message | ({"completed": True} if self.known.completed else {})

    def place_after(self, step: int) -> int:
        """Where in the log the first row after a step is."""
        return bisect.bisect_right(self.rows, step, key=lambda row: row[0] or 0)

    def scalars(self, rows: list[Row]) -> dict[str, Any]:
        """The message with some rows."""
        return {
            "v": 1, "type": "scalars", "session_id": self.session_id, "generation": self.generation,
            "columns": COLUMNS, "rows": rows,
        }  # fmt: skip

    def event(self, row: Row) -> tuple[dict[str, Any], bool]:
        """The train_step message of a row, and whether its token events are in it."""
        step, end = int(row[0] or 0), self.known.num_steps
        found = self._events.get(step)
        if found is not None:
            return found, True
        return {
            "v": 1, "type": "train_step", "step": step, "num_steps": end, "step_time_ms": row[4],
            "progress": min(1.0, step / end), "steps_remaining": max(0, end - step), "doc": "", "loss": row[1],
            "learning_rate": row[2], "grad_norm": row[3], "mean_abs_update": None,
            "sequence": {"token_ids": [], "tokens": []}, "token_events": [], "last_token_event": None,
        }, False  # fmt: skip

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
            self._tell(self.status())
        elif event == "samples":
            self._keep(message["message"])
        elif event == "frame":
            header = {
                "v": 1, "type": "frame", "panel": message["panel"], "id": None, "session_id": self.session_id,
                "step": message["step"], "generation": self.generation, "data": message["data"],
                "tensors": message["tensors"],
            }  # fmt: skip
            for viewer in self.viewers:
                viewer.show(message["key"], header, blob)
        elif event in ("fault", "unseen"):
            self._tell({"v": 1, "type": "error", "detail": message["detail"], "id": None})

    def _add(self, rows: list[Row], recorded: list[int]) -> None:
        self.rows += rows
        known, step = self.known, int(self.rows[-1][0] or 0)
        known.step, known.recorded = step, recorded
        known.steps_remaining, known.progress = max(0, known.num_steps - step), min(1.0, step / known.num_steps)
        known.completed = step >= known.num_steps
        self.touched = time.monotonic()
        for viewer in self.viewers:
            viewer.wake()

    def _keep(self, message: dict[str, Any]) -> None:
        self.samples = [*self.samples, message][-MOST_SAMPLES:]
        self._tell(message)

    def _lost(self) -> None:
        self.running, self.failed = False, True
        self._tell({"v": 1, "type": "error", "detail": "the session's process has ended", "id": None})

    def _tell(self, message: dict[str, Any]) -> None:
        for viewer in self.viewers:
            viewer.tell(message)

    # ---- viewers

    def join(self) -> Viewer:
        """A new browser; it is told what the session is."""
        viewer = Viewer(self)
        viewer.tell(self.described())
        viewer.tell(self.status())
        self.viewers.add(viewer)
        self._tune()
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A browser has gone."""
        self.viewers.discard(viewer)
        self.touched = time.monotonic()
        self._tune()

    def subscribe(self, viewer: Viewer, asked: Subscribe) -> None:
        """Let a browser watch panels.

        Raises:
            Refusal: there is no such panel, or its parameters are wrong.
        """
        keys: dict[str, str] = {}
        for watch in asked.panels:
            if watch.panel not in PANELS:
                raise Refusal(422, f"there is no such panel; there are {', '.join(PANELS)}")
            key = json.dumps([watch.panel, watch.params], sort_keys=True)
            keys[key] = watch.key
            entry = self._watched.setdefault(key, {"panel": watch.panel, "params": watch.params, "hz": watch.hz})
            entry["hz"] = max(entry["hz"], watch.hz)
        fresh = [key for key in keys if key not in viewer.panels]
        viewer.subscribe(asked, keys)
        self._tune(fresh)

    def _tune(self, fresh: list[str] | None = None) -> None:
        """Tell the worker what somebody watches."""
        wanted = {key for viewer in self.viewers for key in viewer.panels}
        self._watched = {key: entry for key, entry in self._watched.items() if key in wanted}
        plain = any(not viewer.subscribed for viewer in self.viewers)
        self.link.say("watch", panels=self._watched, fresh=fresh or [], events=EVENTS if plain else 0)

    def taken(self, key: str) -> None:
        """A browser has taken a frame: the next one may be made."""
        self.link.say("want", keys=[key])

    def seen(self) -> None:
        """A browser has taken a train_step event."""
        self.link.say("want", events=1)

    # ---- requests

    async def begin(self, op: str, **values: Any) -> None:
        """Let the worker begin.

        Raises:
            Refusal: what was asked for cannot be.
        """
        answer, _ = await self.link.ask(op, session_id=self.session_id, **values)
        self.metadata = Metadata.model_validate(answer["metadata"])

    async def one_step(self) -> dict[str, Any]:
        """One step: its event."""
        return (await self.link.ask("step"))[0]["event"]

    async def run(self, asked: Run) -> int:
        """Train by itself: how many steps that will be."""
        answer, _ = await self.link.ask("run", steps=asked.steps, delay_ms=asked.delay_ms, to_end=asked.to_end)
        return int(answer["steps"])

    async def pause(self) -> None:
        """Stop after the present step."""
        await self.link.ask("pause")

    async def reset(self) -> None:
        """Begin again."""
        answer, _ = await self.link.ask("reset")
        self.rows, self.samples, self.running = [], [], False
        self._events.clear()
        self.metadata = Metadata.model_validate(answer["metadata"])
        for viewer in self.viewers:
            viewer.begin_again()
            viewer.tell(self.described())
            viewer.tell(self.status())

    async def sample(self, asked: Sample) -> dict[str, Any]:
        """Drawn texts."""
        return (await self.link.ask("sample", sample=asked.model_dump()))[0]["message"]

    async def inspect(self, asked: Inspect) -> tuple[dict[str, Any], bytes]:
        """A panel: header without key and id, payload."""
        answer, blob = await self.link.ask("inspect", panel=asked.panel, step=asked.step, params=asked.params)
        return {
            "v": 1, "type": "frame", "panel": asked.panel, "session_id": self.session_id, "step": answer["step"],
            "generation": self.generation, "data": answer["data"], "tensors": answer["tensors"],
        }, blob  # fmt: skip

    async def answered(self, asked: Inspect) -> dict[str, Any]:
        """A panel as JSON."""
        header, blob = await self.inspect(asked)
        tensors = in_json(header["tensors"], blob)
        return {"panel": asked.panel, "step": header["step"], "data": header["data"], "tensors": tensors}

    async def question(self, asked: Inspect) -> bytes:
        """A panel as a frame."""
        header, blob = await self.inspect(asked)
        return frame({**header, "id": asked.id, "key": None}, blob)

    async def offered(self, asked: Fork) -> dict[str, Any]:
        """What a fork of this session needs."""
        answer, _ = await self.link.ask("snapshot", step=asked.step)
        kept = {k: v for k, v in answer.items() if k != "re"}
        units = [*kept["off"], *(unit.model_dump() for unit in asked.off)]
        place = Place(session_id=self.session_id, step=kept["step"]).model_dump()
        changed = {"learning_rate": asked.learning_rate, "num_steps": asked.num_steps, "data": asked.data}
        return {**kept, **changed, "off": units, "name": asked.name, "parent": place}

    def forked(self, other: Session) -> None:
        """Tell of a fork, and let it have the past that it shares."""
        parent = other.known.parent
        assert parent is not None
        other.rows = self.rows[: self.place_after(parent.step or 0)]
        other.samples = [s for s in self.samples if s["step"] <= (parent.step or 0)]
        message = {"v": 1, "type": "forked", "session_id": other.session_id, "parent": parent.model_dump()}
        for viewer in self.viewers:
            if viewer.subscribed:
                viewer.tell(message)

    async def close(self) -> None:
        """End the worker."""
        self.link.lost = lambda: None
        await self.link.close()
