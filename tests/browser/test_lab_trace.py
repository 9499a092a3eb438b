"""A session as a file: what is exported comes back, in a lab and in a page from the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


def frame(told: dict[str, Any], panel: str, step: int) -> dict[str, Any]:
    """What a trace holds of a panel at a step, asked without any words."""
    found = (one for one in told["frames"] if (one["panel"], one["step"], one["params"]) == (panel, step, {}))
    return next(found)


def look_through(lab: Any, told: dict[str, Any]) -> None:
    """Go to some recorded steps and compare what the page shows with the trace."""
    recorded = told["metadata"]["recorded"]
    close = """([name, value]) =>
        Math.abs(Number(document.querySelector(`[data-fact=${name}]`)?.textContent) - value) < 1e-3"""
    for step in (recorded[0], recorded[len(recorded) // 2], recorded[-1]):
        lab.page.get_by_label("Time travel").fill(str(step))
        lab.until("step => document.querySelector('[data-fact=step]').textContent.startsWith(`step ${step} `)", step)
        for panel, fact, value in (
            ("tokens", "batch-loss", frame(told, "tokens", step)["data"]["loss"]),
            ("graph", "graph-loss", frame(told, "graph", step)["data"]["loss"]),
            ("knockout", "whole", frame(told, "knockout", step)["data"]["whole"]),
        ):
            lab.show(panel)
            lab.until(close, [fact, value])
        lab.show("lens")
        first = frame(told, "lens", step)["data"]["layers"][-1]["top"][0]
        lab.until(
            """token => [...document.querySelectorAll("#lens tbody tr")].at(-1)
                ?.querySelector(".mono").textContent === token""",
            first["token"],
        )
    rows = told["scalars"]["rows"]
    columns = told["scalars"]["columns"]
    assert lab.state("state.points.map((point) => point.loss)") == [row[columns.index("loss")] for row in rows]


def test_a_trace_is_read_back(lab: Any, tmp_path: Path) -> None:
    panel = lab.show("trace")
    with lab.page.expect_download() as waiting:
        panel.get_by_role("button", name="Save the trace").click()
    file = tmp_path / waiting.value.suggested_filename
    waiting.value.save_as(file)
    told = json.loads(file.read_text(encoding="utf-8"))
    assert [row[0] for row in told["scalars"]["rows"]] == list(range(1, 31)), "the whole history"
    panel.get_by_label("Trace file").set_input_files(file)
    lab.until("import('/static/store.js').then(({ state }) => state.metadata?.kind === 'trace')")
    lab.page.locator("#loss canvas").first.wait_for()
    assert not lab.page.get_by_role("button", name="Run").is_visible(), "what is recorded cannot be trained on"
    look_through(lab, told)


def test_one_page_replays_from_the_disk(lab: Any, open_lab: Any, tmp_path: Path) -> None:
    panel = lab.show("trace")
    with lab.page.expect_download() as waiting:
        panel.get_by_role("button", name="Save as one page").click()
    file = tmp_path / "session.html"
    waiting.value.save_as(file)
    told = lab.ask(f"session/{lab.session}/trace")
    offline = open_lab(file.as_uri())
    offline.page.goto(file.as_uri())
    offline.page.locator("#loss canvas").first.wait_for()
    offline.state = lambda script: offline.page.evaluate(f"import('lab/store.js').then(({{ state }}) => {script})")
    look_through(offline, told)
    offline.show("attention").locator("summary").click()
    cells = offline.page.locator("#attention-table tbody tr").first.locator("td").all_text_contents()
    weights = frame(told, "attention", told["metadata"]["recorded"][-1])["tensors"]["weights"]
    assert len(cells) == weights["shape"][-1]
    assert sum(float(cell) for cell in cells) == pytest.approx(1, abs=1e-3)


def test_what_is_no_trace_is_refused(lab: Any, tmp_path: Path) -> None:
    panel = lab.show("trace")
    (tmp_path / "poem.json").write_text("roses are red", encoding="utf-8")
    panel.get_by_label("Trace file").set_input_files(tmp_path / "poem.json")
    lab.until("/not JSON/.test(document.querySelector('.notice')?.textContent)")
    assert lab.state("state.sessionId") == lab.session
