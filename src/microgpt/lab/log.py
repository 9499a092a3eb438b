"""What every kind of session is to browsers: its metadata, its log of scalars and samples, and who watches it."""

from __future__ import annotations

import bisect
import json
import time
from typing import Any

from microgpt.lab.frames import Floats, frame, in_json
from microgpt.lab.messages import Fork, Inspect, Listed, Metadata, Run, Sample, Subscribe, Watch
from microgpt.lab.panels import PANELS
from microgpt.lab.refusals import Refusal
from microgpt.lab.viewer import Viewer

COLUMNS = ["step", "loss", "learning_rate", "grad_norm", "step_ms", "tokens", "val_loss"]
Row = list[float | None]


class Log:
    """A session; this one can only be looked at.

    Args:
        session_id: its name in every address.
    """

    #: why it cannot train
    fixed = "this session can only be looked at"

    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.metadata: Metadata | None = None
        self.running = self.failed = False
        self.rows: list[Row] = []
        self.samples: list[dict[str, Any]] = []
        self.viewers: set[Viewer] = set()
        self.touched = time.monotonic()

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
        return {
            "v": 1, "type": "train_step", "step": step, "num_steps": end, "step_time_ms": row[4],
            "progress": min(1.0, step / end), "steps_remaining": max(0, end - step), "doc": "", "loss": row[1],
            "learning_rate": row[2], "grad_norm": row[3], "mean_abs_update": None,
            "sequence": {"token_ids": [], "tokens": []}, "token_events": [], "last_token_event": None,
        }, False  # fmt: skip

    def tell(self, message: dict[str, Any]) -> None:
        """Something for all browsers."""
        for viewer in self.viewers:
            viewer.tell(message)

    def part(self) -> None:
        """The session is over: tell all browsers."""
        self.failed = True
        self.tell({"v": 1, "type": "error", "detail": "the session was closed", "id": None})

    # ---- viewers

    def join(self) -> Viewer:
        """A new browser; it is told what the session is."""
        viewer = Viewer(self)
        viewer.tell(self.described())
        viewer.tell(self.status())
        self.viewers.add(viewer)
        self.tune([])
        return viewer

    def leave(self, viewer: Viewer) -> None:
        """A browser has gone."""
        self.viewers.discard(viewer)
        self.touched = time.monotonic()
        self.tune([])

    def subscribe(self, viewer: Viewer, asked: Subscribe) -> None:
        """Let a browser watch panels.

        Raises:
            Refusal: there is no such panel.
        """
        keys: dict[str, str] = {}
        for watch in asked.panels:
            if watch.panel not in PANELS:
                raise Refusal(422, f"there is no such panel; there are {', '.join(PANELS)}")
            keys[self.watched(watch)] = watch.key
        fresh = [key for key in keys if key not in viewer.panels]
        viewer.subscribe(asked, keys)
        self.tune(fresh)

    def watched(self, watch: Watch) -> str:
        """A panel as this session knows it."""
        return json.dumps([watch.panel, watch.params], sort_keys=True)

    def tune(self, fresh: list[str]) -> None:
        """What is watched has changed; panels in `fresh` are to be sent at once."""

    def taken(self, key: str) -> None:
        """A browser has taken a frame: the next one may be made."""

    def seen(self) -> None:
        """A browser has taken a train_step event."""

    # ---- requests

    async def one_step(self) -> dict[str, Any]:
        """One step: its event.

        Raises:
            Refusal: it cannot, as all of the following.
        """
        raise Refusal(409, self.fixed)

    async def run(self, asked: Run) -> int:
        """Train by itself: how many steps that will be."""
        raise Refusal(409, self.fixed)

    async def pause(self) -> None:
        """Stop after the present step."""

    async def reset(self) -> None:
        """Begin again."""
        raise Refusal(409, self.fixed)

    async def sample(self, asked: Sample) -> dict[str, Any]:
        """Drawn texts."""
        raise Refusal(409, self.fixed)

    async def offered(self, asked: Fork) -> dict[str, Any]:
        """What a fork of this session needs."""
        raise Refusal(409, self.fixed)

    def forked(self, other: Log) -> None:
        """Tell of a fork, and let it have the past that it shares."""
        parent = other.known.parent
        assert parent is not None
        other.rows = self.rows[: self.place_after(parent.step or 0)]
        other.samples = [s for s in self.samples if s["step"] <= (parent.step or 0)]
        message = {"v": 1, "type": "forked", "session_id": other.session_id, "parent": parent.model_dump()}
        for viewer in self.viewers:
            if viewer.subscribed:
                viewer.tell(message)

    async def inspect(self, asked: Inspect) -> tuple[dict[str, Any], bytes]:
        """A panel: header without key and id, payload."""
        raise Refusal(409, self.fixed)

    async def answered(self, asked: Inspect) -> dict[str, Any]:
        """A panel as JSON."""
        header, blob = await self.inspect(asked)
        tensors = in_json(header["tensors"], blob)
        return {"panel": asked.panel, "step": header["step"], "data": header["data"], "tensors": tensors}

    async def question(self, asked: Inspect) -> bytes:
        """A panel as a frame."""
        header, blob = await self.inspect(asked)
        return frame({**header, "id": asked.id, "key": None}, blob)

    def header(self, panel: str, step: int, data: dict[str, Any], tensors: list[dict[str, Any]]) -> dict[str, Any]:
        """The head of a frame, without key and id."""
        return {
            "v": 1, "type": "frame", "panel": panel, "id": None, "key": None, "session_id": self.session_id,
            "step": step, "generation": self.generation, "data": data, "tensors": tensors,
        }  # fmt: skip

    async def frames(self) -> list[dict[str, Any]]:
        """The panels of a trace."""
        raise Refusal(409, self.fixed)

    async def weights(self, step: int | None) -> tuple[int, dict[str, Floats], float]:
        """All weights at a step, and their validation loss: step, weights by name, loss."""
        raise Refusal(409, self.fixed)

    async def close(self) -> None:
        """Nothing is left of it."""
