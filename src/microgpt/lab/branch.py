"""Forks: what one session hands to another, so that it goes on from a step of the first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel
from safetensors.torch import load_file

from microgpt.config.build import build, plain
from microgpt.config.schema import TrainConfig
from microgpt.errors import UsageError
from microgpt.lab.history import History
from microgpt.lab.learner import State
from microgpt.lab.messages import Place, Unit
from microgpt.lab.recipe import Recipe, prepared_recipe
from microgpt.lab.studio import Studio


class Asked(BaseModel):
    """A fork.

    Attributes:
        run: the origin's run folder.
        states: its recorded states.
        tokenizer: file of its tokenizer.
        config: its config.
        step: where the fork leaves.
        parent: the same for the page.
        off: units that stay switched off.
        name: of the fork.
    """

    run: str
    states: str
    tokenizer: str
    config: dict[str, Any]
    step: int
    parent: Place
    off: list[Unit]
    name: str = ""
    learning_rate: float | None = None
    num_steps: int | None = None
    data: str | None = None


def offered(studio: Studio, run: Path, step: int) -> dict[str, Any]:
    """What a fork needs to know of its origin, whose state of the step is recorded."""
    tokenizer = studio.history.folder / "tokenizer.json"
    if not tokenizer.exists():
        studio.tokenizer.save(tokenizer)
    return {
        "run": str(run),
        "states": str(studio.history.folder),
        "tokenizer": str(tokenizer),
        "config": plain(studio.recipe.config),
        "step": step,
        "off": [unit.model_dump() for unit in studio.off],
    }


def taken(asked: Asked) -> tuple[Recipe, State]:
    """The recipe of a fork and the state that it starts from.

    Raises:
        MicrogptError: the changed settings are impossible, or the other data does not fit the tokens.
    """
    if asked.num_steps is not None and asked.num_steps <= asked.step:
        raise UsageError(f"num_steps={asked.num_steps} is not after step {asked.step}", "choose a later end")
    values = dict(asked.config)
    values["optimizer"] |= {} if asked.learning_rate is None else {"learning_rate": asked.learning_rate}
    values["trainer"] |= {} if asked.num_steps is None else {"max_steps": asked.num_steps}
    values["data"] |= {} if asked.data is None else {"corpus": asked.data, "path": [], "mixture": []}
    values["name"] = asked.name
    recipe = prepared_recipe(build(TrainConfig, values), Path(asked.tokenizer))
    return recipe, load_file(History(Path(asked.states), 1).path(asked.step))


def studio(asked: Asked, recipe: Recipe, state: State, states: Path) -> Studio:
    """The fork, standing at its first step; what was before it is its origin's to show."""
    made = Studio(recipe, states, asked.off)
    made.history.adopt(History(Path(asked.states), 1), asked.step)
    made.live.restore(state)
    return made
