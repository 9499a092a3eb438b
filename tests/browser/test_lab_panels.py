"""Every panel of the lab shows the engine's numbers: the page beside the API."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest


def numbers(text: str) -> list[float]:
    """All numbers of a text, with the page's minus sign."""
    found = re.findall(r"[-−]?[0-9]+(?:\.[0-9]+)?(?:e[-−]?[0-9]+)?", text)
    return [float(one.replace("−", "-")) for one in found]


def test_the_loss_panel_shows_every_step(lab: Any) -> None:
    told = lab.ask(f"session/{lab.session}/scalars")
    rows = [dict(zip(told["columns"], row)) for row in told["rows"]]
    assert lab.state("state.points.map((point) => point.step)") == list(range(1, 31))
    assert lab.state("state.points.map((point) => point.loss)") == [row["loss"] for row in rows]
    lab.shows("loss", rows[-1]["loss"], abs=1e-3)
    lab.shows("lowest", min(row["loss"] for row in rows), abs=1e-3)
    lab.shows("highest", max(row["loss"] for row in rows), abs=1e-3)
    known = [row["val_loss"] for row in rows if row["val_loss"] is not None]
    lab.shows("val-loss", known[-1], abs=1e-3)
    assert f"ln 27 = {math.log(27):.3f}" in lab.page.locator("#loss").inner_text()


def test_tokens_and_the_story_of_one(lab: Any) -> None:
    panel = lab.show("tokens")
    data, tensors = lab.look("tokens", 30)
    lab.shows("batch-loss", data["loss"], abs=1e-3)
    buttons = panel.locator(".batch .token")
    shown = [float(text) for text in buttons.locator("small").all_text_contents()]
    length = data["rows"][0]["length"]
    assert shown == pytest.approx(tensors["losses"][0][:length].tolist(), abs=6e-3)
    buttons.nth(2).click()
    lab.until("document.querySelector('#tokens h3')?.textContent.endsWith('at place 2')")
    story, _ = lab.look("token", 30, row=0, position=2)
    lab.shows("token-loss", story["loss"], abs=1e-3)
    lab.shows("rank", story["rank"])
    first = panel.locator(".story-parts .bars").first.locator(".bar-line").first
    assert first.locator(".mono").inner_text().startswith(story["top"][0]["token"])


def test_attention_weights_as_numbers(lab: Any) -> None:
    panel = lab.show("attention")
    _, tensors = lab.look("attention", 30, row=0)
    panel.get_by_role("button", name="layer 0, head 2").click()
    panel.locator("summary").click()
    panel.locator(".tokens .token").nth(3).click()
    lab.until("document.querySelectorAll('#attention-table thead th').length === 5")
    cells = panel.locator("#attention-table tbody tr").nth(2).locator("td").all_text_contents()
    assert [float(cell) for cell in cells] == pytest.approx(tensors["weights"][0, 2, 3, :4].tolist(), abs=1e-4)
    large = panel.locator(".large canvas")
    box = large.bounding_box()
    assert box is not None
    size = tensors["weights"].shape[-1]
    lab.page.mouse.move(box["x"] + box["width"] * 1.5 / size, box["y"] + box["height"] * 3.5 / size)
    lab.until("/gives/.test(document.querySelector('[data-fact=attention]').textContent)")
    share = tensors["weights"][0, 2, 3, 1] * 100
    assert f"gives {share:.1f} %" in lab.fact("attention") or f"gives {share:.0f} %" in lab.fact("attention")
    lab.page.mouse.move(box["x"] + box["width"] * 4.5 / size, box["y"] + box["height"] * 3.5 / size)
    lab.until("/cannot see/.test(document.querySelector('[data-fact=attention]').textContent)")


def test_the_sliders_act_on_the_probabilities(lab: Any) -> None:
    panel = lab.show("probabilities")
    _, tensors = lab.look("probabilities", 30, row=0, position=-1)
    panel.get_by_label("temperature").fill("0.5")
    panel.get_by_label("top-k").fill("4")
    panel.get_by_label("top-p").fill("0.6")
    logits = tensors["logits"].astype(np.float64) / 0.5
    shares = np.sort(np.exp(logits - logits.max()))[::-1][:4]
    shares /= shares.sum()
    kept = shares[: 1 + int(np.searchsorted(np.cumsum(shares), 0.6))]
    kept /= kept.sum()
    lab.until("n => [...document.querySelectorAll('#probability-bars .bar-line.cut')].length === 14 - n", len(kept))
    texts = panel.locator("#probability-bars .bar-line .number").all_text_contents()
    assert [float(text.rstrip(" %")) for text in texts[: len(kept)]] == pytest.approx((100 * kept).tolist(), abs=0.6)
    assert set(texts[len(kept) :]) == {"cut"}


def test_a_text_of_ones_own_and_the_lens(lab: Any) -> None:
    panel = lab.show("probabilities")
    panel.get_by_placeholder("a text of your own").fill("ann")
    panel.get_by_role("button", name="Ask").click()
    lab.until("document.querySelectorAll('#probabilities .token').length === 4")
    data, _ = lab.look("lens", 30, text="ann", position=-1)
    lens = lab.show("lens")
    lab.until("document.querySelectorAll('#lens .token').length === 4")
    for row, layer in zip(lens.locator("tbody tr").all(), data["layers"]):
        first = row.locator(".guess").first.inner_text()
        assert layer["top"][0]["token"] in first
        assert numbers(first)[-1] == pytest.approx(100 * layer["top"][0]["prob"], abs=0.6)
    assert lab.state("state.view.text") == "ann"


def test_the_graph_down_to_single_numbers(lab: Any) -> None:
    panel = lab.show("graph")
    data, _ = lab.look("graph", 30, row=0)
    panel.locator(".node").first.wait_for()
    assert panel.locator(".node").count() == len(data["nodes"])
    lab.shows("graph-loss", data["loss"], abs=1e-3)
    node = next(one for one in data["nodes"] if one["name"] == "layer0.attn_wo" and one["op"] == "linear")
    panel.locator('.node[aria-label^="layer0.attn_wo, linear"]').click()
    panel.get_by_label("Index into layer0.attn_wo").fill("0, 2, 5")
    panel.get_by_role("button", name="Look inside").click()
    number, _ = lab.look("scalar", 30, row=0, node=node["id"], index=[0, 2, 5], count=24)
    panel.locator("#operands").wait_for()
    lab.shows("scalar-value", number["value"], rel=1e-4)
    lab.shows("scalar-gradient", number["gradient"], rel=1e-4)
    cells = panel.locator("#operands tbody tr").first.locator("td").all_text_contents()
    operand = number["operands"][0]
    expected = [operand["value"], operand["local"], operand["flow"]]
    assert [numbers(cell)[0] for cell in cells] == pytest.approx(expected, rel=2e-3, abs=1e-12)
    panel.get_by_role("button", name="Check the gradient").click()
    lab.says("check", "agrees")
    panel.locator("#operands .text-button").first.click()
    lab.until("document.querySelectorAll('#graph .crumbs button').length === 2")


def test_forward_and_backward_in_the_order_in_which_they_happened(lab: Any) -> None:
    panel = lab.show("graph")
    data, _ = lab.look("graph", 30, row=0)
    forward = sorted((one for one in data["nodes"] if one["forward"] is not None), key=lambda one: one["forward"])
    backward = sorted((one for one in data["nodes"] if one["backward"] is not None), key=lambda one: one["backward"])
    slider = panel.get_by_label("Moment of the pass")
    for moment, one in ((0, forward[0]), (len(forward) - 1, forward[-1]), (len(forward), backward[0])):
        slider.fill(str(moment))
        lab.until("name => document.querySelector('[data-fact=moment]').textContent.endsWith(name)", one["name"])
        assert panel.locator(".node.lit, .node.lit-back").count() == 1
    slider.fill("-1")
    panel.get_by_role("button", name="Play forward and backward").click()
    panel.locator(".node.lit").first.wait_for()
    panel.get_by_role("button", name="Hold").click()


def test_why_a_weight_moved(lab: Any) -> None:
    panel = lab.show("parameters")
    data, _ = lab.look("parameters", 30)
    panel.locator("tbody tr").first.wait_for()
    names = [one["name"] for one in data["matrices"]]
    assert panel.locator(".matrices tbody tr").count() == len(names)
    panel.get_by_role("button", name="layer0.attn_wv").click()
    panel.get_by_label("Index into layer0.attn_wv").fill("3, 7")
    panel.get_by_role("button", name="Why did it move?").click()
    weight, _ = lab.look("weight", 30, name="layer0.attn_wv", index=[3, 7])
    panel.locator("#terms").wait_for()
    lab.shows("change", weight["change"], rel=2e-3)
    shown = [numbers(text)[0] for text in panel.locator("#terms tbody td").all_text_contents()]
    assert sum(shown[:-1]) == pytest.approx(weight["change"], rel=1e-2, abs=1e-6)
    lab.says("account", "adds up")


def test_the_map_of_embeddings(lab: Any) -> None:
    panel = lab.show("embeddings")
    data, tensors = lab.look("embeddings", 30, which="wte", dimensions=2)
    panel.locator(".point").first.wait_for()
    assert panel.locator(".point text").all_text_contents() == data["labels"]
    reach = np.abs(tensors["points"]).max()
    x, y = (
        float(one)
        for one in re.findall(r"-?[0-9][-0-9.e]*", panel.locator(".point").nth(4).get_attribute("transform") or "")
    )
    assert [(x - 200) / 174, (200 - y) / 174] == pytest.approx((tensors["points"][4] / reach).tolist(), abs=1e-3)


def test_knocking_out_a_head_reaches_every_panel(lab: Any) -> None:
    panel = lab.show("knockout")
    _, tensors = lab.look("knockout", 30)
    first = panel.locator(".part").first
    first.wait_for()
    assert numbers(first.get_attribute("title") or "")[-1] == pytest.approx(float(tensors["effect"][0, 0]), rel=1e-2)
    first.click()
    unit = {"layer": 0, "kind": "head", "index": 0}
    data, _ = lab.look("knockout", 30, off=[unit])
    lab.page.locator("[data-fact=knocked]").wait_for()
    lab.shows("knocked", data["loss"], abs=1e-4)
    tokens, _ = lab.look("tokens", 30, off=[unit])
    lab.show("tokens")
    lab.until(
        "loss => Math.abs(Number(document.querySelector('[data-fact=batch-loss]').textContent) - loss) < 1e-3",
        tokens["loss"],
    )
    lab.show("samples").get_by_role("button", name="Draw ten now").click()
    lab.until("/parts off/.test(document.querySelector('#samples').textContent)")
    lab.show("knockout").get_by_role("button", name="All on again").click()
    lab.until("document.querySelectorAll('.part[aria-pressed=true]').length === 0")


def test_two_states_side_by_side(lab: Any) -> None:
    panel = lab.show("compare")
    panel.get_by_role("button", name="Compare", exact=True).click()
    panel.locator("#compare-table").wait_for()
    losses = [lab.look("knockout", step)[0]["whole"] for step in (30, 0)]
    cells = panel.locator("#compare-table tbody tr").first.locator("td").all_text_contents()
    assert [numbers(cell)[0] for cell in cells] == pytest.approx([*losses, losses[1] - losses[0]], abs=1e-3)
    assert panel.locator("canvas").count() == 2
