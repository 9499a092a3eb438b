"""Every key of the map does something, in every tab, at every width, and stands in the help."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from microgpt.hub.app import HubApp
from microgpt.hub.help import commands, help_text
from microgpt.hub.ink import DARK, ink_of
from microgpt.hub.keys import BY_TAB, EVERYWHERE, LISTS, TABS, hints
from microgpt.hub.lines import Lines

pytestmark = pytest.mark.asyncio

Hub = Callable[..., HubApp]
SIZES = ((40, 24), (41, 10), (60, 24), (75, 24), (76, 24), (110, 30), (160, 45), (200, 50), (40, 12))


async def opened(pilot: Pilot[Any]) -> None:
    """Wait until what is done in threads is done."""
    await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def pane_class(tab: str) -> type:
    return getattr(import_module(f"microgpt.hub.{tab}"), f"{tab.capitalize()}Pane")


@pytest.mark.parametrize("tab", TABS)
async def test_every_key_has_an_action(tab: str) -> None:
    for keys, owner in ((BY_TAB[tab], pane_class(tab)), (EVERYWHERE, HubApp), (LISTS, Lines)):
        for key in keys:
            name = key.action.partition("(")[0]
            assert hasattr(owner, f"action_{name}"), f"{owner.__name__} has no action_{name}"


@pytest.mark.parametrize("tab", TABS)
async def test_no_key_means_two_things(tab: str) -> None:
    own = [name for key in BY_TAB[tab] for name in key.names.split(",")]
    everywhere = [name for key in EVERYWHERE for name in key.names.split(",")]
    assert len(own) == len(set(own))
    assert not set(own) & set(everywhere)


@pytest.mark.parametrize("tab", TABS)
async def test_the_help_names_every_key(tab: str) -> None:
    text = help_text(tab, ink_of(DARK)).plain
    for key in (*BY_TAB[tab], *EVERYWHERE, *LISTS):
        assert not key.label or key.what in text
    assert text.index(tab.capitalize()) == 0
    assert {word for _, word, _ in hints(tab)} >= {"start", "stop", "help", "quit"}
    assert len(commands(tab)) > 15


@pytest.mark.parametrize("tab", TABS)
async def test_every_key_can_be_pressed(tab: str, runs: Path, hub: Hub) -> None:
    app = hub(tab=tab)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for key in BY_TAB[tab]:
            for name in key.names.split(","):
                if (tab, name) in (("runs", "R"), ("runs", "F"), ("runs", "E")):
                    continue  # they start processes: test_real_run has them
                await pilot.press(name)
                await pilot.pause()
                for _ in range(3):
                    if len(app.screen_stack) > 1:
                        await pilot.press("escape")
                        await pilot.pause()
                await pilot.press("escape")
                assert len(app.screen_stack) == 1, f"{name} leaves a dialog that escape does not close"
                if app.tab != tab:
                    await app.workers.wait_for_complete()
                    app.action_show_tab(tab)
                    await pilot.pause()
        assert app.is_running


async def test_tab_and_letters_go_round_the_tabs(runs: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        seen = [app.tab]
        for key in ("tab", "l", "tab", "l", "tab", "l"):
            await pilot.press(key)
            await opened(pilot)
            seen.append(app.tab)
        assert seen == [*TABS, "train"]
        for key, tab in (("shift+tab", "chat"), ("h", "models"), ("f1", "train"), ("f4", "runs")):
            await pilot.press(key)
            await opened(pilot)
            assert app.tab == tab
        assert {pane.id for pane in app.panes() if pane.display} == {"pane_runs"}


async def test_the_mouse_opens_tabs_and_presses_hints(runs: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.click("TabBar", offset=(10, 0))
        await opened(pilot)
        assert app.tab == "monitor"
        bar = app.screen.query_one("Hints")
        spans: Any = getattr(bar, "_spans")  # noqa: B009
        at = next(start for start, _, action in spans if action == "pane_monitor.log_scale")
        await pilot.click("Hints", offset=(at + 1, 0))
        await pilot.pause()
        pane: Any = app.pane("monitor")
        assert pane.look.log


async def test_help_opens_scrolls_copies_and_closes(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("question_mark")
        await pilot.pause()
        assert len(app.screen_stack) == 2
        await pilot.press("j", "j", "k", "y")
        assert "Train" in app.clipboard
        await pilot.press("escape")
        await pilot.pause()
        assert len(app.screen_stack) == 1


async def test_the_palette_finds_and_does(runs: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("ctrl+p")
        await pilot.pause()
        await pilot.press(*"Tab: Monitor")
        await pilot.pause(0.5)
        await pilot.press("enter")
        await pilot.pause(0.3)
        await opened(pilot)
        assert app.tab == "monitor"


async def test_themes_go_round_and_every_one_draws_every_tab(runs: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        seen = [app.theme]
        for _ in range(4):
            await pilot.press("t")
            await pilot.pause()
            seen.append(app.theme)
            for tab in TABS:
                app.action_show_tab(tab)
                await opened(pilot)
        assert seen == [f"microgpt-{n}" for n in ("dark", "light", "safe", "plain", "dark")]


@pytest.mark.parametrize("tab", TABS)
async def test_no_width_breaks_a_tab(tab: str, runs: Path, hub: Hub) -> None:
    app = hub(tab=tab)
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        for width, height in (
            (40, 24),
            (41, 10),
            (60, 24),
            (75, 24),
            (76, 24),
            (110, 30),
            (160, 45),
            (200, 50),
            (40, 12),
        ):
            await pilot.resize_terminal(width, height)
            await pilot.pause()
            assert app.is_running
            for widget in app.screen.query("*"):
                if widget.display and widget.region.area:
                    assert widget.region.right <= width, f"{widget} is wider than {width}"


async def test_leaving_ends_the_app(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await pilot.press("q")
        await pilot.pause()
    assert not app.is_running
    assert app.return_code == 0
