"""The hub's page tells the truth about filters, keys and themes."""

from __future__ import annotations

import re
from pathlib import Path

from microgpt.hub.expression import compiled
from microgpt.hub.ink import THEMES
from microgpt.hub.keys import BY_TAB, EVERYWHERE, TABS

PAGE = (Path(__file__).parents[2] / "docs" / "hub.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    return PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_every_filter_of_the_page_means_something() -> None:
    values = {"name": "tiny-chat", "val_loss": 1.0, "status": "FINISHED", "model.n_layer": 1}
    filters = re.findall(r"^\| `(.+?)` \|", section("Runs"), re.MULTILINE)
    assert len(filters) == 3
    assert all(compiled(text)(values) for text in filters)


def test_every_tab_has_its_row() -> None:
    assert re.findall(r"^\| (\w+) \|", section("Tabs"), re.MULTILINE)[1:] == [t.capitalize() for t in TABS]


def test_every_key_of_the_page_is_one() -> None:
    for tab in ("Train", "Monitor", "Runs", "Chat"):
        known = {word for key in (*BY_TAB[tab.lower()], *EVERYWHERE) for word in key.label.split()}
        named = set(re.findall(r"`(\S|enter|space|esc|backspace)`", section(tab))) - {"~"}
        known |= {"v"} if tab == "Train" else set()  # a key of the data sets' own dialog
        assert named
        assert named <= known, f"{tab}: {named - known}"


def test_every_theme_is_named() -> None:
    for theme in THEMES:
        assert f"`{theme.name.removeprefix('microgpt-')}`" in section("Terminals")
