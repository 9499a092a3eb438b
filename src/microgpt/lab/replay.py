"""Traces: a session in a file, and a session from a file."""

from __future__ import annotations

import json
from typing import Any

from pydantic import ValidationError

from microgpt import runtime
from microgpt.lab.frames import from_json, packed
from microgpt.lab.log import Log
from microgpt.lab.messages import VERSION, Inspect, Trace, TraceFrame
from microgpt.lab.panels import PANELS
from microgpt.lab.refusals import Refusal, said

LIMIT = 48 << 20


async def exported(session: Log) -> dict[str, Any]:
    """The trace of a session, as JSON."""
    frames = await session.frames()
    metadata = session.known.model_dump(mode="json")
    return {
        "v": VERSION,
        "format": "microgpt-lab-trace",
        "created": runtime.now_iso(),
        "metadata": {**metadata, "kind": "trace", "recorded": sorted({frame["step"] for frame in frames})},
        "scalars": session.scalars(session.rows),
        "samples": session.samples,
        "frames": frames,
    }


def read(content: bytes) -> Trace:
    """A trace from a file.

    Raises:
        Refusal: it is none, or of a newer release.
    """
    try:
        return Trace.model_validate_json(content)
    except ValidationError as error:
        raise Refusal(422, f"the file is no trace of version {VERSION}: {said(error.errors())}") from None


def canonical(panel: str, step: int, given: dict[str, Any]) -> str:
    """What a frame is found by: parameters at their defaults say nothing.

    Raises:
        Refusal: there is no such panel, or it has no such parameters.
    """
    if panel not in PANELS:
        raise Refusal(422, "there is no such panel")
    try:
        params = PANELS[panel][0].model_validate(given).model_dump(mode="json", exclude_defaults=True)
    except ValidationError as error:
        raise Refusal(422, f"params of {panel}: {said(error.errors())}") from None
    return json.dumps([panel, step, params], sort_keys=True)


class Replay(Log):
    """A session from a trace.

    Args:
        session_id: its name in every address.
        trace: read and checked.

    Raises:
        Refusal: a tensor is not what its shape says.
    """

    fixed = "this session replays a trace and can only be looked at"

    def __init__(self, session_id: str, trace: Trace) -> None:
        super().__init__(session_id)
        self.metadata = trace.metadata.model_copy(update={"kind": "trace", "generation": 0})
        self.rows = trace.scalars.rows
        self.samples = [message.model_dump(mode="json") for message in trace.samples]
        self._frames: dict[str, TraceFrame] = {}
        for frame in trace.frames:
            try:
                from_json({name: t.model_dump() for name, t in frame.tensors.items()})
            except ValueError:
                raise Refusal(422, "a tensor of the trace is not what its shape says") from None
            self._frames[canonical(frame.panel, frame.step, frame.params)] = frame
        self._steps = sorted({frame.step for frame in trace.frames})

    async def inspect(self, asked: Inspect) -> tuple[dict[str, Any], bytes]:
        step = asked.step if asked.step is not None else max(self._steps, default=0)
        found = self._frames.get(canonical(asked.panel, step, asked.params))
        if found is None:
            raise Refusal(404, "the trace does not hold that panel at that step")
        listed, blob = packed(from_json({name: t.model_dump() for name, t in found.tensors.items()}))
        return self.header(found.panel, found.step, found.data, listed), blob

    async def frames(self) -> list[dict[str, Any]]:
        return [frame.model_dump(mode="json") for frame in self._frames.values()]
