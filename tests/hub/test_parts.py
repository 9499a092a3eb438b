"""The parts without a screen: series, warnings, filters, runs of a store, the trash, costs."""

from __future__ import annotations

import itertools
import math
import sqlite3
from pathlib import Path

import pytest

from microgpt.errors import BusyError
from microgpt.files import FolderLock
from microgpt.hub.alerts import divergence, not_finite, overfitting, stall
from microgpt.hub.expression import ExpressionError, compiled
from microgpt.hub.launch import Launcher, tail
from microgpt.hub.loglines import Tail
from microgpt.hub.measures import CATEGORIES, MEASURES, categories, measure_of
from microgpt.hub.replay import Replay
from microgpt.hub.runlist import all_rows, differences, mlflow_rows
from microgpt.hub.series import Series, duration, number, smoothed
from microgpt.hub.talker import SAMPLING, moved
from microgpt.hub.trash import Trash
from microgpt.hub.watch import Watched


def series(values: list[float], start: int = 1) -> Series:
    found = Series()
    for i, value in enumerate(values):
        found.add(start + i, value)
    return found


def test_the_last_value_of_a_step_counts() -> None:
    found = series([3.0, 2.0, 1.0])
    found.add(2, 2.5)
    found.add(3, 0.5)
    found.add(4, 0.25)
    assert found.steps == [1, 2, 3, 4]
    assert found.values == [3.0, 2.5, 0.5, 0.25]
    late = Series()
    for step in (1, 5, 3):
        late.add(step, float(step))
    assert (late.steps, late.values) == ([1, 3, 5], [1.0, 3.0, 5.0])


def test_the_facts_of_a_series() -> None:
    facts = series([3.0, 1.0, math.nan, 2.0]).facts()
    assert (facts.latest, facts.delta, facts.low, facts.high, facts.count) == (2.0, None, 1.0, 3.0, 4)
    limited = series([3.0, 1.0, 2.0]).facts(2)
    assert (limited.latest, limited.delta, limited.count) == (1.0, -2.0, 2)
    assert Series().facts().latest is None
    assert series([1.0, 2.0]).at(1.9) == (2, 2.0)


def test_smoothing_has_no_bias_at_its_start_and_passes_over_nan() -> None:
    assert smoothed([4.0, 4.0, 4.0], 0.9) == pytest.approx([4.0, 4.0, 4.0])
    told = smoothed([1.0, math.nan, 3.0], 0.5)
    assert told[0] == told[1] == 1.0
    assert 1.0 < told[2] < 3.0


@pytest.mark.parametrize(
    "value, text",
    [(None, "-"), (2.30111, "2.3011"), (0.5, "0.5"), (0.00042, "4.20e-04"), (123.456, "123.5"), (54_321, "54.3k"),
     (7_654_321, "7.65M"), (math.nan, "nan"), (0, "0"), (12.345, "12.35")],
)  # fmt: skip
def test_numbers_are_short(value: float | None, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize(
    "seconds, text", [(42, "42 s"), (187, "3:07 min"), (7500, "2 h 05 min"), (273600, "3 d 4 h"), (math.nan, "-")]
)
def test_durations_are_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_loss_that_is_no_number_warns() -> None:
    assert not_finite(series([2.0, 1.0])) is None
    alert = not_finite(series([2.0, math.nan]))
    assert alert is not None
    assert "step 2" in alert.text


def test_a_loss_that_runs_away_warns() -> None:
    falling = [3.0 - i / 100 for i in range(100)]
    assert divergence(series(falling)) is None
    assert divergence(series([*falling, *[4.0] * 30])) is not None
    assert divergence(series([2.0, 9.0])) is None  # too few to say


def test_validation_that_rises_while_training_falls_warns() -> None:
    train = series([3.0 - i / 50 for i in range(100)])
    val = Series()
    for step, loss in ((20, 2.5), (40, 2.0), (60, 2.2), (80, 2.4), (100, 2.6)):
        val.add(step, loss)
    assert overfitting(val, train) is not None
    assert overfitting(val, series([2.0] * 100)) is None
    assert overfitting(series([3.0, 2.5, 2.0, 1.9]), train) is None


def test_silence_warns_by_the_length_of_a_step() -> None:
    quick, slow = series([10.0] * 5), series([60_000.0] * 5)
    assert stall(61, quick) is not None
    assert stall(61, slow) is None
    assert stall(30, quick) is None


VALUES = {
    "name": "names-tiny",
    "status": "FINISHED",
    "val_loss": 1.8,
    "steps": 200,
    "model.n_layer": 2,
    "device": None,
}


@pytest.mark.parametrize(
    "text",
    ["", "tiny", "val_loss < 2", "val_loss<2 and status=FINISHED", "n_layer >= 2 or steps = 1", "not status = FAILED",
     "name ~ TINY", "name !~ shakes", "1 < val_loss < 2", "model.n_layer == 2 && steps > 100", "status != failed",
     "(steps < 10 or steps > 100) and val_loss <= 1.8", "device != cpu"],
)  # fmt: skip
def test_filters_that_hold(text: str) -> None:
    assert compiled(text)(VALUES)


@pytest.mark.parametrize(
    "text", ["small", "val_loss > 2", "status=RUNNING", "name ~ x and steps = 200", "device < 3"]
)
def test_filters_that_do_not_hold(text: str) -> None:
    assert not compiled(text)(VALUES)


@pytest.mark.parametrize(
    "text",
    ["val_loss <", "nothing = 3", "__import__('os').system('x') = 1", "val_loss.__class__ = 3", "[1] < 2", "= 3",
     "(lambda: 1)() = 1", "val_loss < " + "(" * 500],
)  # fmt: skip
def test_a_filter_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        compiled(text)(VALUES)


def test_every_metric_of_a_category_is_explained() -> None:
    for key in itertools.chain.from_iterable(CATEGORIES.values()):
        measure = MEASURES[key]
        assert measure.what
        assert measure.why
        assert measure.how
    assert categories(["train/loss", "mine/own"])["Other"] == ("mine/own",)
    assert measure_of("mine/own").title == "mine/own"


def test_sampling_moves_within_its_limits() -> None:
    sampling = SAMPLING
    for _ in range(60):
        sampling = moved(sampling, "temperature", 0.05)
    assert sampling.temperature == 1.8
    for _ in range(60):
        sampling = moved(moved(sampling, "temperature", -0.05), "max_new_tokens", -10)
    assert (sampling.temperature, sampling.max_new_tokens) == (0.1, 20)
    assert moved(SAMPLING, "temperature", 0.05).temperature == 0.4


def test_a_run_is_read_as_it_grows(runs: Path) -> None:
    path = runs / "outputs/2026-01-02/10-00-00-alpha"
    run = Watched(path)
    run.look()
    assert run.of("train/loss").steps == list(range(1, 41))
    assert run.status == "FINISHED"
    assert run.of("system/cpu_percent").values[0] == 51
    with open(path / "metrics.jsonl", "a") as file:
        file.write('{"step": 41, "metrics": {"train/loss": 9.5}}\n{"step": 42, "met')
    run.look()
    assert run.of("train/loss").values[-1] == 9.5
    with open(path / "metrics.jsonl", "a") as file:
        file.write('rics": {"train/loss": 9.25, "new": "nan"}}\nrubbish\n')
    run.look()
    assert run.of("train/loss").steps[-1] == 42
    assert math.isnan(run.of("new").values[0])
    text, kind = run.state(60)
    assert kind == "done"
    assert "10-00-00-alpha" in text


@pytest.mark.parametrize("width", range(0, 100, 7))
def test_the_state_of_a_run_fits(runs: Path, width: int) -> None:
    run = Watched(runs / "outputs/2026-01-02/10-00-00-alpha")
    run.look()
    assert len(run.state(width)[0]) <= max(width, 30)


def test_a_replay_goes_from_the_first_step_to_the_last(runs: Path) -> None:
    run = Watched(runs / "outputs/2026-01-02/10-00-00-alpha")
    run.look()
    replay = Replay(run)
    assert run.limit == 1
    replay.advance(5)
    middle = run.limit
    assert middle is not None
    assert 1 < middle < 40
    replay.playing = False
    replay.advance(5)
    assert run.limit == middle
    replay.playing = True
    for _ in range(9):
        replay.faster(1)
    replay.advance(20)
    assert replay.done
    assert "8x" in replay.line(60)
    replay.end()
    assert run.limit is None


def test_logs_are_read_as_they_grow_without_control_characters(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reader = Tail(path)
    assert reader.read() == []
    path.write_text("one\n\x1b[31mtwo\x1b[0m\x07\nhal")
    assert reader.read() == ["one", "two\\x07"]
    with open(path, "a") as file:
        file.write("f\n")
    assert reader.read() == ["half"]
    path.write_text("a\n\nb\n")
    assert tail(path) == ["a", "b"]


def test_differences_leave_out_what_is_equal(runs: Path) -> None:
    rows = [row for row in all_rows(Path("outputs")) if "broken" not in row.name]
    found = dict(differences(rows))
    assert found["model.n_layer"] == ["1", "2"]
    assert "model.n_head" not in found
    assert "val_loss" in found


def test_runs_that_only_mlflow_knows_are_listed(place: Path) -> None:
    (place / "mlruns").mkdir()
    with sqlite3.connect(place / "mlruns" / "mlflow.db") as store:
        store.execute("CREATE TABLE runs (run_uuid, name, status, start_time INT, lifecycle_stage)")
        store.execute("CREATE TABLE latest_metrics (run_uuid TEXT, key TEXT, value REAL)")
        store.execute("INSERT INTO runs VALUES ('a1', 'far', 'FINISHED', 1767348000000, 'active')")
        store.execute("INSERT INTO runs VALUES ('b2', 'known', 'FINISHED', 1767348000000, 'active')")
        store.executemany("INSERT INTO latest_metrics VALUES (?, 'val/loss', 1.25)", [("a1",), ("b2",)])
    (row,) = mlflow_rows({"b2"})
    assert (row.name, row.path, row.values["val_loss"]) == ("far", None, 1.25)
    (place / "mlruns" / "mlflow.db").write_bytes(b"no database")
    assert list(mlflow_rows(set())) == []


def test_what_was_deleted_comes_back(runs: Path) -> None:
    outputs = Path("outputs")
    path = outputs / "2026-01-02/10-00-00-alpha"
    trash = Trash(outputs)
    trash.put(path)
    assert not path.exists()
    assert len(all_rows(outputs)) == 2
    assert trash.undo() == path
    assert (path / "metrics.jsonl").exists()
    assert trash.undo() is None
    trash.put(path)
    trash.empty()
    assert not path.exists()
    assert not trash.folder.exists()


def test_a_run_that_is_going_on_is_not_deleted_nor_stopped_from_elsewhere(runs: Path) -> None:
    path = Path("outputs/2026-01-02/10-00-00-alpha")
    lock = FolderLock(path)
    try:
        with pytest.raises(BusyError):
            Trash(Path("outputs")).put(path)
    finally:
        lock.close()
    (path / ".lock").write_text("pid 1 on another-machine")
    assert "another-machine" in Launcher(Path("outputs")).stop(path)
    (path / ".lock").write_text("rubbish")
    assert "not known" in Launcher(Path("outputs")).stop(path)
