"""The panels that a trace holds: of every recorded step that fits."""

from __future__ import annotations

import json
from typing import Any

from microgpt.errors import MicrogptError
from microgpt.lab.frames import in_json, packed
from microgpt.lab.studio import Studio

MOST_STEPS = 60
#: bytes of JSON
BUDGET = 40 << 20
MATRIX_NUMBERS = 4096
#: positions of a row whose probabilities, lens and story are kept
MOST_POSITIONS = 32
PANELS = ("graph", "attention", "probabilities", "lens", "tokens", "parameters", "embeddings", "knockout")


def questions(studio: Studio) -> list[tuple[str, dict[str, Any]]]:
    """What is asked at each step: every panel as it stands by default, each token's story, each small matrix."""
    asked: list[tuple[str, dict[str, Any]]] = [(panel, {}) for panel in PANELS]
    places = range(min(studio.recipe.config.model.block_size, MOST_POSITIONS))
    asked += [(panel, {"position": p}) for p in places for panel in ("token", "probabilities", "lens")]
    small = [n for n, p in studio.live.model.named_parameters() if p.numel() <= MATRIX_NUMBERS]
    return asked + [("matrix", {"name": name}) for name in small]


def frames_at(studio: Studio, step: int) -> list[dict[str, Any]]:
    """All answers at a step; a question that the step has no answer to is left out."""
    found: list[dict[str, Any]] = []
    for panel, params in questions(studio):
        try:
            at, data, tensors = studio.look(panel, step, params)
        except MicrogptError:
            continue
        listed, blob = packed(tensors)
        found.append({"panel": panel, "params": params, "step": at, "data": data, "tensors": in_json(listed, blob)})
    return found


def frames(studio: Studio) -> list[dict[str, Any]]:
    """The frames of a trace, by step; the last step is always there."""
    last = studio.live.step
    newest = frames_at(studio, last)
    size = len(json.dumps(newest))
    steps = [step for step in studio.history.steps if step < last]
    room = max(0, min(MOST_STEPS, BUDGET // max(1, size)) - 1)
    chosen = steps if len(steps) <= room else [steps[i * len(steps) // room] for i in range(room)]
    return [frame for step in chosen for frame in frames_at(studio, step)] + newest
