"""The configuration page is the generator's output, and says what every auto becomes."""

from __future__ import annotations

from pathlib import Path

from microgpt.config.build import settings
from microgpt.config.docs import AUTO, CHOSEN, page
from microgpt.config.schema import STAGES, TrainConfig

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_page_is_what_the_generator_prints() -> None:
    again = "python -m microgpt.config.docs > docs/configuration.md"
    assert PAGE.read_text(encoding="utf-8") == page(), f"make it again: {again}"


def test_every_key_of_every_stage_is_on_the_page() -> None:
    text = page()
    for cls in STAGES.values():
        for key in settings(cls):
            assert f"| `{key}` |" in text, key


def test_every_auto_is_explained() -> None:
    known = settings(TrainConfig)
    assert {key for key, item in known.items() if item.optional} == set(AUTO)
    assert {key for key, item in known.items() if item.default == "auto"} == set(CHOSEN)
