"""What a user's words stand for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from microgpt.comparing.choose import chosen
from microgpt.errors import ModelError


def names(references: list[str]) -> list[str]:
    return [
        str(run.path.relative_to("outputs") if not run.path.is_absolute() else run.path) for run in chosen(references)
    ]


@pytest.fixture
def runs(write: Any) -> None:
    for where, sweep in (
        ("day/alone", ""),
        ("day/first-sweep/0", "parent-1"),
        ("day/first-sweep/1", "parent-1"),
        ("day/second-sweep/0", ""),
        ("day/second-sweep/1", ""),
        ("day/last", ""),
    ):
        write(where, {10: 3.0}, sweep=sweep)
    write("day/looked-at", {}, stage="validate")
    os.symlink("day/last", "outputs/latest")


@pytest.mark.usefixtures("runs")
def test_nothing_said_means_the_latest_sweep() -> None:
    assert names([]) == ["day/second-sweep/0", "day/second-sweep/1"]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize(
    "references, wanted",
    [
        (["outputs/day/alone"], ["day/alone"]),
        (["outputs/day/first-sweep"], ["day/first-sweep/0", "day/first-sweep/1"]),
        (["parent-1"], ["day/first-sweep/0", "day/first-sweep/1"]),
        (["latest"], ["day/last"]),
        (["outputs/latest"], ["day/last"]),
        (["latest", "outputs/day/last"], ["day/last"]),
        (["outputs/day/*-sweep/1"], ["day/first-sweep/1", "day/second-sweep/1"]),
    ],
)
def test_words_and_what_they_stand_for(references: list[str], wanted: list[str]) -> None:
    assert names(references) == wanted


@pytest.mark.usefixtures("runs")
def test_all_is_every_training_run_once() -> None:
    assert len(names(["all"])) == len(set(names(["all", "outputs", "latest"]))) == 6


def test_without_a_sweep_all_runs_are_meant(write: Any) -> None:
    write("day/a", {10: 3.0})
    write("day/b", {10: 2.0})
    assert names([]) == ["day/a", "day/b"]


@pytest.mark.usefixtures("runs")
@pytest.mark.parametrize("reference", ["nothing", "outputs/none-*", "", "outputs/day/looked-at"])
def test_what_stands_for_no_run_is_one_line(reference: str) -> None:
    with pytest.raises(ModelError, match=r"no (training )?run"):
        chosen([reference])


def test_no_run_at_all_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"python -m microgpt\.train"):
        chosen([])
