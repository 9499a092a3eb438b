"""What a worker answers about its model, as messages of the pipe."""

from __future__ import annotations

from typing import Any

from microgpt.lab.export import frames
from microgpt.lab.frames import packed
from microgpt.lab.studio import Studio


def inspect(studio: Studio, message: dict[str, Any]) -> dict[str, Any]:
    """A panel once."""
    step, data, tensors = studio.look(message["panel"], message["step"], message["params"])
    listed, blob = packed(tensors)
    return {"step": step, "data": data, "tensors": listed, "blob": blob}


def trace(studio: Studio, message: dict[str, Any]) -> dict[str, Any]:
    """The panels at recorded steps."""
    return {"frames": frames(studio)}


def weights(studio: Studio, message: dict[str, Any]) -> dict[str, Any]:
    """All weights at a step, and their validation loss."""
    scene = studio.scene(message["step"])
    found = {name: p.detach().numpy() for name, p in scene.model.named_parameters()}
    listed, blob = packed(found)
    return {"step": scene.step, "tensors": listed, "loss": studio.live.loss(scene.model)[0], "blob": blob}
