"""A real training: started from the form, left, found again by another hub, stopped, resumed, talked to."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Static

from microgpt.checkpoints.folder import checkpoints_in
from microgpt.files import is_locked
from microgpt.hub.app import HubApp
from microgpt.hub.dialogs import Ask, Choose, Page
from microgpt.runs.find import all_runs
from microgpt.runs.folder import read_run

pytestmark = pytest.mark.slow

Hub = Callable[..., HubApp]
FIELDS = {
    "data.batch_size": "4", "trainer.max_steps": "4000", "trainer.eval_interval": "50", "trainer.eval_batches": "2",
    "trainer.steps_per_call": "1", "sampling.max_new_tokens": "8", "device.name": "cpu", "device.threads": "1",
    "trainer.sample_interval": "50", "tracking.system_interval": "0.5",
}  # fmt: skip


async def until(pilot: Pilot[Any], test: Callable[[], bool], what: str, seconds: float = 120) -> None:
    """Wait until something is so."""
    ends = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < ends, f"{what}: not after {seconds:.0f} s\n{printed()}"
        await pilot.pause(0.1)


def printed() -> str:
    return "\n".join(p.read_text() for p in Path("outputs").rglob("*.log"))


def status() -> str:
    runs = all_runs()
    return runs[-1].status if runs else ""


async def page(pilot: Pilot[Any], hub: HubApp, title: str) -> str:
    """What a page over the tabs says, once it is there; its title is as expected."""

    def there() -> bool:
        return isinstance(hub.screen, Page) and any(box.border_title for box in hub.screen.query("#box"))

    await until(pilot, there, title)
    text = str(hub.screen.query(Static).last().render())
    assert hub.screen.query_one("#box").border_title == title, text
    await pilot.press("escape")
    await until(pilot, lambda: not isinstance(hub.screen, Page), "the page is closed")
    return text


@pytest.mark.asyncio
async def test_from_the_form_to_a_conversation(place: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    first = hub()
    async with first.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
        pane: Any = first.pane("train")
        pane.form.chosen |= {"data": "names", "tokenizer": "char", "model": "micro", "tracking": "mlflow"}
        for key, value in FIELDS.items():
            pane.form.set(key, value)
        pane.recompose_config()
        await pilot.app.workers.wait_for_complete()
        await pilot.press("s")
        await until(pilot, lambda: first.watched is not None, "a run folder")
        assert first.watched is not None
        watched = first.watched
        await until(pilot, lambda: watched.status == "RUNNING" and watched.step > 10, "steps are seen")
        assert (watched.path / "console.log").exists()
        await pilot.press("q")
    assert status() == "RUNNING"

    second = hub(tab="monitor")
    async with second.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: second.watched is not None, "the other hub attaches")
        run = second.watched
        assert run is not None
        assert run.path == watched.path
        await until(pilot, lambda: run.of("val/loss").count() > 0, "a validation")
        assert run.of("train/loss").count() > 10
        await pilot.press("x")
        await until(pilot, lambda: run.status == "KILLED", "stopped")
        stopped_at = run.step
        saved = [step for step, _ in checkpoints_in(run.path / "checkpoints")]
        assert max(saved) == stopped_at < 4000

        await pilot.press("x")  # nothing goes on: nothing happens
        await pilot.press("f4")
        await until(pilot, lambda: not is_locked(run.path), "it has told MLflow of its end")
        await pilot.pause(0.3)
        await pilot.press("R")
        await until(pilot, lambda: run.status == "RUNNING", "resumed")
        await until(pilot, lambda: run.step > stopped_at, "it goes on where it stopped")
        assert second.watched is not None
        assert second.watched.path == run.path
        assert len(all_runs()) == 1
        os.kill(int(run.facts["pid"]), 15)  # by anyone else: the hub sees it too
        await until(pilot, lambda: run.status == "KILLED" and not second.launcher.children, "stopped by a signal")

        await pilot.press("E")
        await page(pilot, second, "evaluate: done")
        await pilot.press("X")
        await until(pilot, lambda: isinstance(second.screen, Choose), "the formats")
        await pilot.press("down", "enter")
        await page(pilot, second, "export: done")
        assert any(path.stat().st_size for path in Path("outputs").rglob("*f16*/weights.safetensors"))
        await pilot.press("f5")
        models: Any = second.pane("models")
        await until(pilot, lambda: bool(models.rows), "its checkpoints are listed")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(second.screen, Ask), "the alias")
        await pilot.press("enter")
        assert "models:/microgpt@best" in await page(pilot, second, "export: done")
        await pilot.press("f4")
        await pilot.pause(0.3)
        await pilot.press("F")
        await until(pilot, lambda: len(all_runs()) == 2, "trained again from its record")
        again = all_runs()[-1]
        assert read_run(again.path)["from_run"] == str(run.path)
        await until(pilot, lambda: second.watched is not run and second.watched is not None, "it is watched")
        new = second.watched
        assert new is not None
        await until(pilot, lambda: new.of("val/loss").count() > 0, "a validation of it")
        await pilot.press("x")
        await until(pilot, lambda: new.status == "KILLED" and not second.launcher.children, "stopped too")
        assert new.of("train/loss").values[:5] == run.of("train/loss").values[:5]
        await pilot.press("f6")
        chat: Any = None

        def loaded() -> bool:
            nonlocal chat
            chat = second.pane("chat")
            return chat is not None and chat.sides["a"].model is not None

        await until(pilot, loaded, "the model is loaded")
        for _ in range(4):
            await pilot.press("N")
        await pilot.press("enter", *"em", "enter")
        side = chat.sides["a"]
        await until(pilot, lambda: len(side.turns) == 2 and not side.busy, "a text")
        assert side.reply.drawn
        assert all(token.logprob <= 0 for token in side.reply.drawn)


@pytest.mark.asyncio
async def test_a_run_that_fails_says_why(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30), notifications=True) as pilot:
        await pilot.pause()
        app.begin(["data=text", "data.path=[nowhere.txt]", "tracking=off"])
        await until(pilot, lambda: any("failed (exit 3)" in n.message for n in app._notifications), "told")
        assert any("failed (exit 3)" in n.message and "nowhere.txt" in n.message for n in app._notifications)
        assert not app.launcher.children


@pytest.mark.asyncio
async def test_a_sweep_is_followed_from_trial_to_trial(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.pause()
        await pilot.app.workers.wait_for_complete()
        pane: Any = app.pane("train")
        pane.form.chosen |= {"data": "names", "tokenizer": "char", "model": "micro", "tracking": "off"}
        for key, value in {**FIELDS, "trainer.max_steps": "3", "seed": "1,2"}.items():
            pane.form.set(key, value)
        pane.recompose_config()
        await pilot.app.workers.wait_for_complete()
        await pilot.press("s")
        await pilot.pause()
        await pilot.press("y")
        await until(pilot, lambda: len(app.launcher.children) == 1, "started")
        await until(pilot, lambda: not app.launcher.children, "both are done")
        runs = all_runs()
        assert [run.status for run in runs] == ["FINISHED", "FINISHED"]
        assert app.watched is not None
        assert app.watched.path == runs[-1].path


def test_the_first_picture_needs_no_heavy_library(tmp_path: Path) -> None:
    code = """
import asyncio, sys
from microgpt.cli import hub as verb
from microgpt.hub.app import HubApp
app = HubApp(ascii_only=False)
seen = []
async def main():
    async with app.run_test(size=(80, 24)) as pilot:
        seen.append([m for m in ("torch", "mlflow", "pytorch_lightning", "datasets") if m in sys.modules])
        for tab in ("monitor", "logs", "runs", "models", "chat"):
            app.action_show_tab(tab)
            await pilot.pause()
        await app.workers.wait_for_complete()
        seen.append([m for m in ("torch", "mlflow", "pytorch_lightning", "datasets") if m in sys.modules])
asyncio.run(main())
print(seen)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[[], []]"
