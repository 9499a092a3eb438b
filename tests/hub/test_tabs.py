"""What a person does in each tab, and what comes of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, Static

from microgpt.hub.app import HubApp
from microgpt.hub.chartview import ChartView
from microgpt.hub.dialogs import Ask, Choose, Page, Sure

pytestmark = pytest.mark.asyncio

Hub = Callable[..., HubApp]
ALPHA = "outputs/2026-01-02/10-00-00-alpha"
BETA = "outputs/2026-01-02/11-00-00-beta"


async def settle(pilot: Pilot[Any]) -> None:
    """Wait for threads and drawing."""
    await pilot.pause()
    await pilot.app.workers.wait_for_complete()
    await pilot.pause()


def shown(app: HubApp, selector: str) -> str:
    """The text of a Static in the tab, or in the dialog over it."""
    found = app.screen.query(selector).results(Static)
    return "\n".join(str(static.content) for static in found if static.display)


def pane(app: HubApp) -> Any:
    return app.pane(app.tab)


# --- Train ----------------------------------------------------------------------------------------------------


async def go_to(pilot: Pilot[Any], key: str) -> None:
    """Put the form's cursor on a field, through the search."""
    await pilot.press("slash")
    await pilot.pause()
    await pilot.press(*key)
    await pilot.press("enter")
    await settle(pilot)


async def test_a_field_is_edited_in_its_place_and_its_mistake_told(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await go_to(pilot, "n_layer")
        await pilot.press("e", "backspace", "x")
        await pilot.pause()
        assert "whole number" in pane(app).form.problems["model.n_layer"]
        assert "whole number" in shown(app, "#meaning")
        assert "mistake" in shown(app, "#command")
        await pilot.press("backspace", "5")
        await pilot.pause()
        assert "model.n_layer=5" in shown(app, "#command")
        assert "yours 5" in shown(app, "#meaning")
        before = shown(app, "#cost")
        await pilot.press("enter")
        await settle(pilot)
        assert pane(app).form.changes == {"model.n_layer": "5"}
        await pilot.press("e", "9", "escape")
        await settle(pilot)
        assert pane(app).form.changes == {"model.n_layer": "5"}
        await pilot.press("backspace")
        await settle(pilot)
        assert pane(app).form.changes == {}
        assert shown(app, "#cost") != before


async def test_choices_are_cycled_chosen_and_presets_taken(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await go_to(pilot, "mlp")
        await pilot.press("space")
        assert pane(app).form.changes == {"model.mlp": "relu"}
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, Choose)
        await pilot.press(*"gelu_t", "enter")
        await settle(pilot)
        assert pane(app).form.changes == {"model.mlp": "gelu_tanh"}
        await go_to(pilot, "tied")
        await pilot.press("enter")
        assert pane(app).form.changes["model.tied"] == "true"
        await pilot.press("c")
        await pilot.pause()
        assert len(pane(app).view.rows) == 4
        await pilot.press("c", "U")
        await settle(pilot)
        assert pane(app).form.words() == []
        for key, name in (("1", "fast"), ("2", "coherent-fast"), ("3", "coherent-max")):
            await pilot.press(key)
            await settle(pilot)
            assert pane(app).form.command() == f"python -m microgpt.train experiment={name}"
        assert pane(app).form.value("model.n_embd") == "96"
        await pilot.press("p")
        await pilot.pause()
        await pilot.press(*"names", "enter")
        await settle(pilot)
        assert pane(app).form.option("data") == "names"
        await pilot.press("y")
        assert app.clipboard == "python -m microgpt.train experiment=names"


async def test_a_group_takes_an_option_and_a_sweep_asks_first(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        view = pane(app).view
        view.cursor = next(i for i, r in enumerate(view.rows) if r.key == "model")
        await pilot.press("space")
        await settle(pilot)
        assert pane(app).form.chosen == {"model": "gpt2"}
        assert pane(app).form.value("model.n_embd") == "768"
        await pilot.press("e", *["backspace"] * 4, *"micro,tiny", "enter")
        await settle(pilot)
        assert pane(app).form.arguments() == ["-m", "model=micro,tiny"]
        assert "sweep of 2 runs" in shown(app, "#command")
        await pilot.press("s")
        await pilot.pause()
        assert isinstance(app.screen, Sure)
        await pilot.press("n")
        await pilot.pause()
        assert app.launcher.children == []


async def test_nothing_starts_while_something_is_wrong(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        pane(app).form.set("model.n_head", "3")
        await pilot.press("s")
        await settle(pilot)
        assert app.launcher.children == []
        assert pane(app).view.here.key == "model.n_embd"


async def test_a_data_set_is_looked_into_checked_and_taken(place: Path, hub: Hub) -> None:
    (place / "mine.txt").write_text("".join(f"line number {i} of a text\n" for i in range(40)))
    (place / "bad.jsonl").write_text('{"text": "a"}\n{"nothing": 1}\n')
    app = hub()
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("f")
        await settle(pilot)
        picker: Any = app.screen
        names = [e[1] if isinstance(e, tuple) else e.name for e in picker.sets.entries]
        assert names[:3] == ["tales", "names", "conversations"]
        await pilot.press("end")
        await pilot.pause()
        assert "line number 0 of a text" in shown(app, "#text")
        await pilot.press("v")
        for _ in range(300):
            await pilot.pause(0.1)
            if "Report" in shown(app, "#text"):
                break
        assert "40 (40 line" in shown(app, "#text") or "documents" in shown(app, "#text")
        await pilot.press("enter")
        await settle(pilot)
        assert pane(app).form.words() == ["data=text", "data.path=[mine.txt]"]
        assert not list((place / "outputs" / ".hub").glob("check*"))


async def test_a_path_can_be_typed(place: Path, hub: Hub) -> None:
    (place / "texts").mkdir()
    (place / "texts" / "a.jsonl").write_text('{"text": "a"}\n')
    app = hub()
    async with app.run_test(size=(100, 30)) as pilot:
        await settle(pilot)
        await pilot.press("f")
        await settle(pilot)
        await pilot.press("slash", *"texts", "enter")
        await settle(pilot)
        assert pane(app).form.words() == ["data=jsonl", "data.path=[texts]"]


# --- Monitor --------------------------------------------------------------------------------------------------


async def test_the_newest_run_is_watched_and_charts_show_it(runs: Path, hub: Hub) -> None:
    app = hub(tab="monitor")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        assert app.watched is not None
        assert app.watched.path == Path(BETA)
        charts = list(app.screen.query(ChartView))
        assert [c.key for c in charts] == [
            "train/loss",
            "val/loss",
            "val/gap",
            "perf/steps_per_s",
            "perf/tokens_per_s",
        ]
        assert "n 40" in shown(app, "#panel0")
        text = charts[0].render().plain
        assert text.startswith("train loss")
        assert sum(0x2800 < ord(c) < 0x2900 for c in text) > 20


async def test_categories_metrics_focus_and_back(runs: Path, hub: Hub) -> None:
    app = hub(tab="monitor")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("right")
        await settle(pilot)
        assert pane(app).category == "Eval"
        await pilot.press("down", "down")
        await settle(pilot)
        assert pane(app).key == "val/ppl"
        assert "perplexity" in shown(app, "#panel0")
        await pilot.press("enter")
        await settle(pilot)
        assert [c.key for c in app.screen.query(ChartView)] == ["val/ppl"]
        await pilot.press("right", "right")
        await settle(pilot)
        assert pane(app).category == "Eval"
        assert pane(app).look.cross is not None
        assert ": " in app.screen.query_one(ChartView).render().plain.splitlines()[0]
        await pilot.press("escape")
        await settle(pilot)
        assert len(app.screen.query(ChartView)) == 5
        assert pane(app).look.cross is None
        await pilot.press("left", "left")
        await settle(pilot)
        assert pane(app).category == "Speed"


async def test_log_smoothing_zoom_and_panels(runs: Path, hub: Hub) -> None:
    app = hub(tab="monitor")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("g", "m")
        assert (pane(app).look.log, pane(app).look.smoothing) == (True, 0.97)
        assert "log" in shown(app, "#heads")
        await pilot.press("left_square_bracket", "plus")
        window = pane(app).look.window
        assert window is not None
        assert window[1] - window[0] == pytest.approx(19.5)
        assert window[0] < 39 < window[1]
        await pilot.press("minus")
        assert pane(app).look.window is None
        await pilot.press("plus", "plus", "0")
        assert pane(app).look.window is None
        await pilot.press("v")
        assert "FINISHED" in shown(app, "#panel0")
        await pilot.press("v")
        assert "noah" in shown(app, "#panel0")
        assert "\x1b" not in shown(app, "#panel0")


async def test_the_mouse_points_zooms_and_picks(runs: Path, hub: Hub) -> None:
    app = hub(tab="monitor")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        second = list(app.screen.query(ChartView))[1]
        await pilot.hover(second, offset=(second.size.width - 2, 3))
        await pilot.pause()
        assert pane(app).look.cross == pytest.approx(40, abs=2)
        await pilot.click(second)
        await settle(pilot)
        assert pane(app).key == "val/loss"
        await pilot.click(second)
        await settle(pilot)
        assert pane(app).alone


async def test_a_run_is_replayed_paused_and_ends(runs: Path, hub: Hub) -> None:
    app = hub(tab="monitor")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("p", "space")
        await pilot.pause(0.3)
        assert app.watched is not None
        limit = app.watched.limit
        assert limit is not None
        assert limit < 40
        await pilot.press("full_stop", "full_stop", "comma")
        assert pane(app).replay.speed == 2.0
        await pilot.press("space")
        pane(app).replay.advance(100)
        await pilot.pause(0.4)
        assert pane(app).replay is None
        assert app.watched.limit is None


async def test_warnings_are_shown_of_a_run_that_goes_on(runs: Path, hub: Hub) -> None:
    from microgpt.files import FolderLock

    path = Path(BETA)
    facts = json.loads((path / "run.json").read_text())
    (path / "run.json").write_text(json.dumps({**facts, "status": "RUNNING"}))
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 41, "metrics": {"train/loss": "nan"}}\n')
    lock = FolderLock(path)
    try:
        app = hub(tab="monitor")
        async with app.run_test(size=(120, 40), notifications=True) as pilot:
            await settle(pilot)
            assert "step 41 is no number" in shown(app, "#panel0")
            assert "nan" in app.state_line(80)[0]
            assert any("no number" in n.message for n in app._notifications)
    finally:
        lock.close()


# --- Logs -----------------------------------------------------------------------------------------------------


async def test_logs_follow_search_filter_copy_and_clear(runs: Path, hub: Hub) -> None:
    app = hub(tab="logs")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        view = pane(app).log_view
        assert (view.count, view.cursor, view.follow) == (61, 60, True)
        await pilot.press("slash", *"step 1", "enter")
        await settle(pilot)
        assert "11 matches" in shown(app, "#about")
        at = view.cursor
        await pilot.press("N")
        assert view.cursor < at
        await pilot.press("n", "n")
        assert not view.follow
        await pilot.press("ampersand", *"!step", "enter")
        await settle(pilot)
        assert view.shown()[-1].endswith("ended: an error")
        assert view.count == 2
        await pilot.press("y")
        assert "made ready" in app.clipboard
        await pilot.press("c")
        assert view.count == 0
        with open(Path(BETA) / "train.log", "a") as file:
            file.write("2026-01-02T11:00:00+0000 info one more\n")
        await pilot.press("f")
        app.tick()
        assert view.shown() == ["2026-01-02T11:00:00+0000 info one more"]


async def test_what_a_process_printed_is_the_other_source(runs: Path, hub: Hub) -> None:
    (Path(BETA) / "console.log").write_text("printed line\n")
    app = hub(tab="logs")
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        await pilot.press("o")
        assert pane(app).log_view.shown() == ["printed line"]
        await pilot.press("o")
        assert pane(app).log_view.count == 61


# --- Runs -----------------------------------------------------------------------------------------------------


async def test_runs_are_sorted_filtered_and_opened(runs: Path, hub: Hub) -> None:
    app = hub(tab="runs")
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(pilot)
        table = pane(app).table
        assert [r.name for r in table.items] == ["11-00-00-beta", "10-00-00-alpha", "09-00-00-broken"]
        await pilot.press("o")
        assert [r.name[9:] for r in table.items] == ["broken", "alpha", "beta"]
        await pilot.press("o", "o", "o")
        assert pane(app).sort == "val_loss"
        assert [r.name[9:] for r in table.items] == ["alpha", "beta", "broken"]
        await pilot.press("O")
        assert [r.name[9:] for r in table.items] == ["beta", "alpha", "broken"]
        await pilot.press("slash", *"n_layer = 1 and", "enter")
        await pilot.pause()
        assert isinstance(app.screen, Ask)  # half an expression is not taken
        await pilot.press(*" val_loss < 2", "enter")
        await settle(pilot)
        assert [r.name[9:] for r in table.items] == ["beta"]
        await pilot.press("slash")
        await pilot.pause()
        app.screen.query_one(Input).value = "alpha"
        await pilot.press("enter")
        await settle(pilot)
        assert [r.name[9:] for r in table.items] == ["alpha"]
        await pilot.press("enter")
        await settle(pilot)
        assert app.tab == "monitor"
        assert app.watched is not None
        assert app.watched.path == Path(ALPHA)


async def test_marked_runs_are_compared_and_laid_over_each_other(runs: Path, hub: Hub) -> None:
    app = hub(tab="runs")
    async with app.run_test(size=(120, 40)) as pilot:
        await settle(pilot)
        await pilot.press("c")
        await pilot.pause()
        assert len(app.screen_stack) == 1
        await pilot.press("home", "space", "space", "c")
        await pilot.pause()
        assert isinstance(app.screen, Page)
        text = shown(app, "Page Static")
        assert "model.n_layer" in text
        assert "model.n_head" not in text
        await pilot.press("escape", "f2")
        await settle(pilot)
        assert len(app.screen.query(ChartView).first().curves()) == 4  # two runs, raw and smoothed
        assert "alpha" in shown(app, "#heads")


async def test_a_run_is_deleted_brought_back_and_gone_at_the_end(runs: Path, hub: Hub) -> None:
    app = hub(tab="runs")
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("d")
        await settle(pilot)
        assert not Path(BETA).exists()
        assert app.watched is None
        await pilot.press("u")
        await settle(pilot)
        assert (Path(BETA) / "metrics.jsonl").exists()
        await pilot.press("end", "d", "q")
        await pilot.pause()
    assert not Path("outputs/2026-01-02/09-00-00-broken").exists()
    assert Path(BETA).exists()


async def test_settings_of_a_run_are_loaded_and_its_folder_looked_into(runs: Path, hub: Hub) -> None:
    app = hub(tab="runs")
    async with app.run_test(size=(100, 24)) as pilot:
        await settle(pilot)
        await pilot.press("w")
        await pilot.pause()
        assert "metrics.jsonl" in shown(app, "Page Static")
        await pilot.press("escape", "y")
        assert app.clipboard == BETA
        await pilot.press("L")
        await settle(pilot)
        assert app.tab == "train"
        assert pane(app).form.words() == ["data=names", "model=micro"]


# --- Models and Chat ------------------------------------------------------------------------------------------


async def test_models_are_listed_with_their_scores(runs: Path, hub: Hub) -> None:
    app = hub(tab="models")
    async with app.run_test(size=(110, 24)) as pilot:
        await settle(pilot)
        rows = pane(app).table.items
        assert [(r.step, r.val_loss, r.marks, r.chat) for r in rows] == [(40, 1.5, ("best", "latest"), True)] * 2
        await pilot.press("i")
        await pilot.pause()
        assert "context 256" in shown(app, "Page Static")
        await pilot.press("escape", "slash", *"alpha", "enter")
        await settle(pilot)
        assert [r.name for r in pane(app).table.items] == ["10-00-00-alpha step-000040"]
        await pilot.press("X")
        await pilot.pause()
        assert isinstance(app.screen, Choose)
        await pilot.press("escape", "a")
        await pilot.pause()
        assert isinstance(app.screen, Ask)
        await pilot.press("escape", "enter")
        await settle(pilot)
        assert app.tab == "chat"
        assert pane(app).sides["a"].name == "10-00-00-alpha step-000040"


async def test_a_conversation_with_settings_and_probabilities(runs: Path, hub: Hub) -> None:
    app = hub(tab="chat")
    async with app.run_test(size=(90, 24)) as pilot:
        await settle(pilot)
        side = pane(app).sides["a"]
        assert side.model is not None
        for key in ("minus", "right_square_bracket", "comma", "apostrophe", "greater_than_sign", "N", "W"):
            await pilot.press(key)
        sampling = pane(app).sampling
        assert (sampling.max_new_tokens, sampling.temperature, sampling.top_k) == (170, 0.4, 19)
        assert (sampling.repetition_penalty, sampling.top_p, sampling.min_new_tokens) == (1.2, 0.93, 15)
        assert "max 170" in shown(app, "#settings")
        for _ in range(3):
            await pilot.press("N")
        for _ in range(5):
            await pilot.press("semicolon")
        await pilot.press("enter", *"Hi", "enter", "escape")
        await settle(pilot)
        assert side.turns == [("user", "Hi"), ("assistant", "Bye.")]
        assert "bot Bye." in shown(app, "#text-a")
        await pilot.press("v", "left")
        await pilot.pause()
        assert "token 4 of 4 '.'" in shown(app, "#odds")
        assert "100.0%" in shown(app, "#odds")
        await pilot.press("left", "right", "y")
        assert app.clipboard == "Bye."
        await pilot.press("g")
        await settle(pilot)
        assert side.turns == [("user", "Hi"), ("assistant", "Bye.")]
        await pilot.press("enter", *"And", "enter", "escape")
        await settle(pilot)
        assert len(side.turns) == 4
        await pilot.press("c")
        assert side.turns == []


async def test_two_models_answer_side_by_side(runs: Path, hub: Hub, models: Path) -> None:
    app = hub(tab="chat")
    async with app.run_test(size=(120, 24)) as pilot:
        await settle(pilot)
        pane(app).load(str(models / "chat"), "b")
        await settle(pilot)
        for _ in range(4):
            await pilot.press("N")
        for _ in range(5):
            await pilot.press("semicolon")
        await pilot.press("enter", *"Hi", "enter", "escape")
        await settle(pilot)
        assert "bot Bye." in shown(app, "#text-a")
        assert "bot Helo, yué!" in shown(app, "#text-b")
        await pilot.press("b", "enter")
        await settle(pilot)
        assert "b" not in pane(app).sides
        assert not app.screen.query_one("#side-b").display


async def test_a_model_of_plain_text_goes_on_and_a_wrong_path_is_told(runs: Path, hub: Hub, models: Path) -> None:
    app = hub(tab="chat")
    async with app.run_test(size=(90, 24), notifications=True) as pilot:
        await settle(pilot)
        await pilot.press("p", *"nowhere", "enter")
        await settle(pilot)
        assert any("nowhere" in n.message for n in app._notifications)
        pane(app).load(str(models / "text"), "a")
        await settle(pilot)
        for _ in range(4):
            await pilot.press("N")
        for _ in range(5):
            await pilot.press("semicolon")
        await pilot.press("enter", "enter", "escape")
        await settle(pilot)
        assert pane(app).sides["a"].turns == [("user", ""), ("assistant", "abcd")]


async def test_without_a_model_or_run_every_tab_says_what_to_do(place: Path, hub: Hub) -> None:
    app = hub()
    async with app.run_test(size=(80, 24)) as pilot:
        await settle(pilot)
        for tab, selector, text in (
            ("monitor", "#panel0", "train loss"), ("logs", "#about", "no run is watched"),
            ("runs", "#foot", "no run yet"), ("models", "#foot", "no checkpoint"), ("chat", "#text-a", "no model"),
        ):  # fmt: skip
            app.action_show_tab(tab)
            await settle(pilot)
            assert text in shown(app, selector), tab
        await pilot.press("x")
