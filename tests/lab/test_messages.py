"""The protocol is what its committed JSON Schema says."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pydantic", reason="the extra `lab` is not installed")
from microgpt.lab import messages, schema
from microgpt.lab.panels import PANELS


def test_the_committed_schema_is_that_of_the_models() -> None:
    assert schema.PATH.read_text(encoding="utf-8") == schema.text(), "run python -m microgpt.lab.schema"


def test_every_message_says_its_version_and_explains_itself() -> None:
    committed = json.loads(schema.PATH.read_text(encoding="utf-8"))
    assert committed["version"] == messages.VERSION == 1
    for name, model in committed["$defs"].items():
        assert model.get("description"), name
        if "type" in model.get("properties", {}):
            assert model["properties"]["v"]["const"] == 1, name


def test_every_panel_has_its_models_in_the_schema() -> None:
    committed = json.loads(schema.PATH.read_text(encoding="utf-8"))
    assert set(committed["panels"]) == set(PANELS)
    for models in committed["panels"].values():
        assert {models["params"], models["data"]} <= set(committed["$defs"])


def test_a_start_without_fields_is_the_prior_art_session() -> None:
    start = messages.Start()
    assert (start.n_embd, start.n_head, start.n_layer, start.block_size) == (16, 4, 1, 8)
    assert (start.learning_rate, start.num_steps, start.temperature, start.seed) == (0.01, 500, 0.5, 42)


@pytest.mark.parametrize(
    "wrong", [{"n_embd": 0}, {"learning_rate": float("nan")}, {"num_steps": 10**9}, {"layers": 3}, {"v": 2}]
)
def test_what_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        messages.Start.model_validate(wrong)
