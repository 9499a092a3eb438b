"""Pictures of every tab, compared dot by dot; beside each stands what it must show, in words.

`pytest tests/hub/test_pictures.py --snapshot-update` draws them again; look at them before they are committed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from microgpt.hub import costs
from microgpt.hub.app import HubApp

pytest.importorskip("pytest_textual_snapshot", reason="pytest-textual-snapshot is not installed")

Hub = Callable[..., HubApp]
Compare = Callable[..., bool]
Steps = Callable[[Pilot[Any]], Awaitable[None]]
SMALL, LARGE = (80, 24), (160, 45)


def plain(app: HubApp) -> str:
    """The characters of the screen."""
    return "\n".join("".join(s.text for s in strip) for strip in app.screen._compositor.render_strips())


@pytest.fixture
def same(snap_compare: Compare, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Draw an app after some keys, check its words, then compare the picture."""
    monkeypatch.setattr(costs, "measured_rate", lambda outputs, newest: 0.0)

    def compare(app: HubApp, size: tuple[int, int], keys: str, *words: str) -> None:
        async def run(pilot: Pilot[Any]) -> None:
            await pilot.pause()
            await pilot.app.workers.wait_for_complete()
            await pilot.pause()
            for key in keys.split():
                await pilot.press(key)
                await pilot.pause()
                await pilot.app.workers.wait_for_complete()
                await pilot.pause()
            for field in pilot.app.screen.query(Input):
                field.cursor_blink = False  # a picture must not depend on the moment
            await pilot.pause()
            shown = plain(app)
            for word in words:
                assert word in shown, f"{word!r} is not on the screen:\n{shown}"

        assert snap_compare(app, terminal_size=size, run_before=run)

    return compare


def test_train_small(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), SMALL, "", "experiment", "n_layer", "This run", "parameters 631,232", "$ python -m microgpt.train")


def test_train_preset_large(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), LARGE, "1", "experiment         fast", "micro", "about 1,536 tokens", "experiment=fast")


def test_train_mistake(same: Any, hub: Hub, place: Path) -> None:
    keys = "j j j j j j j j j e backspace 0 enter"
    same(hub(), SMALL, keys, "✗ n_layer", "must be a whole number", "1 mistake")


def test_train_narrow(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), (40, 24), "j", "Train", "name", "python -m")


def test_train_choice(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), SMALL, "p", "coherent-fast", "type to narrow")


def test_data_sets(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), SMALL, "f down", "conversations", "MIT, written by this project", "v checks it")


def test_monitor_small(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="monitor"), SMALL, "", "train loss", "steps/s", "n 40", "11-00-00-beta 40/40")


def test_monitor_large(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="monitor"), LARGE, "", "generalization gap", "Machine", "CPU", "Samples", "noah")


def test_monitor_focus_log_cross(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="monitor"), SMALL, "enter g left left", "smooth 0.9 log", "38: 1.4744")


def test_two_runs_without_colour(same: Any, hub: Hub, runs: Path) -> None:
    app = hub(tab="runs", theme="plain")
    same(app, SMALL, "space space f2", "━━ beta", "╌╌ alpha")


def test_monitor_in_ascii(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="monitor", ascii_only=True), SMALL, "", "train loss", "steps/s")


def test_logs(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="logs"), SMALL, "slash 5 enter", "61 lines", "matches of '5'", "ended: an error")


def test_runs_large_and_light(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="runs", theme="light"), LARGE, "space", "3 of 3 runs", "1 marked", "FAILED", "4,192")


def test_compare(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="runs", theme="safe"), SMALL, "space space c", "differences", "model.n_embd")


def test_models(same: Any, hub: Hub, runs: Path) -> None:
    same(hub(tab="models"), SMALL, "", "best, latest", "1.5000", "2 of 2 models")


def test_chat_with_probabilities(same: Any, hub: Hub, runs: Path) -> None:
    keys = "N N N N semicolon semicolon semicolon enter H i enter escape v left"
    same(hub(tab="chat"), SMALL, keys, "bot Bye.", "token 4 of 4 '.'", "100.0%", "top-p 0.92")


def test_help(same: Any, hub: Hub, place: Path) -> None:
    same(hub(), SMALL, "question_mark", "keys", "edit the field")
