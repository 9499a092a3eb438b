"""The JSON Schema of the protocol, committed as protocol.schema.json: `python -m microgpt.lab.schema` writes it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from microgpt.lab import messages, panels

PATH = Path(__file__).with_name("protocol.schema.json")


def models() -> list[type[BaseModel]]:
    """Every model of the protocol, in the order of the source."""
    found = [
        value
        for module in (messages, panels)
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, BaseModel) and value.__module__ == module.__name__
    ]
    return sorted(found, key=lambda model: (model.__module__, inspect.getsourcelines(model)[1]))


def schema() -> dict[str, Any]:
    """One definition for each model, and which models belong to each panel."""
    _, definitions = models_json_schema(
        [(model, "validation") for model in models()], title="microgpt lab", ref_template="#/$defs/{model}"
    )
    answered = {name: {"params": p.__name__, "data": d.__name__} for name, (p, d) in panels.PANELS.items()}
    return {"version": messages.VERSION, "panels": answered, **definitions}


def text() -> str:
    """The content of the file."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
