"""The inside of a session: what it shows is what the model does, and looking changes nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pydantic", reason="the extra `lab` is not installed")
import torch
import torch.nn.functional as F
from torch import Tensor

from microgpt.errors import ModelError, UsageError
from microgpt.lab.history import History
from microgpt.lab.learner import Learner, outputs_of, tensors_of
from microgpt.lab.messages import Sample, Unit
from microgpt.lab.panels import PANELS
from microgpt.lab.studio import Studio

from .conftest import LARGER

BOTH = pytest.mark.parametrize("fields", [{}, LARGER], ids=["prior art", "two layers, muon"])
EVERY = {
    "graph": {}, "node": {"node": 5}, "scalar": {"node": 5, "index": [0, 1, 2]},
    "check": {"node": 5, "index": [0, 1, 2]},
    "attention": {}, "probabilities": {}, "lens": {}, "tokens": {}, "token": {}, "parameters": {},
    "matrix": {"name": "wte"}, "weight": {"name": "wte", "index": [1, 2]}, "embeddings": {},
    "knockout": {"rows": 4},
}  # fmt: skip


def advanced(studio: Studio, steps: int) -> Studio:
    for _ in range(steps):
        studio.advance()
    return studio


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@BOTH
def test_a_watched_session_is_bit_for_bit_an_unwatched_one(studio, fields) -> None:
    watched, unwatched = studio("a", **fields), studio("b", **fields)
    for step in range(14):
        for panel, params in EVERY.items():
            if panel != "weight" or step:
                watched.look(panel, None, params)
        watched.samples(Sample(num_samples=2, off=[Unit(layer=0, kind="head", index=0)]))
        watched.advance(watched=step % 2 == 0)
        unwatched.advance()
    assert same(watched.live.state(), unwatched.live.state())


def test_dropout_is_drawn_as_if_nobody_looked(studio) -> None:
    fields = {"settings": {"model.dropout": 0.2}}
    watched, unwatched = studio("a", **fields), studio("b", **fields)
    for step in range(12):
        watched.look("weight", step, {"name": "wte", "index": [0, 0]}) if step else None
        watched.advance()
        unwatched.advance()
    assert same(watched.live.state(), unwatched.live.state())
    watched.shadow_at(7)
    assert same(watched.shadow_at(12).state(), unwatched.live.state())


def test_a_session_gives_the_numbers_of_a_training_run(studio, stage, tmp_path: Path) -> None:
    stage(
        "train", "data=names", "tokenizer=char", "model=micro_first", "optimizer=adamw", "tracking=off", "seed=42",
        "data.packing=false", "data.batch_size=1", "trainer.max_steps=30", "optimizer.schedule=cosine",
        "optimizer.learning_rate=0.01", "optimizer.warmup_steps=0", "optimizer.grad_clip=0", "device.threads=1",
        "sampling.num_samples=1", "hydra.run.dir=run",
    )  # fmt: skip
    lines = [json.loads(line)["metrics"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    theirs = [(m["train/loss"], m["train/grad_norm"]) for m in lines if "train/loss" in m]
    session = studio(num_steps=30)
    ours = [(done.loss, done.grad_norm) for done in (session.advance() for _ in range(30))]
    assert ours == theirs


@BOTH
def test_any_step_is_as_it_was(studio, fields) -> None:
    session = studio(**fields)
    states = []
    for _ in range(25):
        states.append(session.live.state())
        session.advance()
    for step in (3, 24, 10, 11, 0):
        assert same(session.shadow_at(step).state(), states[step])
        weights = dict(session.scene(step).model.named_parameters())
        assert all(torch.equal(p, states[step][f"weights.{n}"]) for n, p in weights.items())
    with pytest.raises(UsageError, match="has not been made"):
        session.scene(26)


@BOTH
def test_an_answer_at_a_step_is_the_answer_that_was_given_then(studio, fields) -> None:
    session = studio(**fields)
    then = {}
    for step in range(18):
        if step in (5, 13):
            then[step] = {p: session.look(p, None, params) for p, params in EVERY.items()}
        session.advance()
    for step, answers in then.items():
        for panel, (at, _, tensors) in answers.items():
            again, _, later = session.look(panel, step, EVERY[panel])
            assert again == at == step
            assert tensors.keys() == later.keys()
            if panel != "embeddings":
                for name, values in tensors.items():
                    assert values == pytest.approx(later[name], abs=1e-5), (panel, name)


@BOTH
def test_attention_is_what_the_model_multiplies_values_with(studio, fields) -> None:
    session = advanced(studio(**fields), 5)
    scene = session.scene(None)
    row = scene.rows(PANELS["attention"][0]())
    seen: list[tuple[Tensor, Tensor]] = []

    class Values(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if func is F.scaled_dot_product_attention:
                seen.append((args[2], result))
            return result

    inputs, _, positions, segments = row.cut
    with torch.no_grad(), Values():
        scene.model(inputs, positions, segments)
    _, data, tensors = session.look("attention", None, {})
    weights = torch.from_numpy(tensors["weights"])
    assert weights.sum(-1) == pytest.approx(1, abs=1e-5)
    assert not weights.triu(1).any()
    assert len(data["tokens"]) == weights.shape[-1]
    for layer, (values, result) in enumerate(seen):
        values = values.repeat_interleave(weights.shape[1] // values.shape[1], dim=1)
        assert torch.allclose(weights[layer] @ values[0], result[0], atol=1e-6)


@BOTH
def test_gradients_of_the_graph_are_those_of_training(studio, fields) -> None:
    session = advanced(studio(**fields), 4)
    _, data, _ = session.look("graph", 4, {})
    done = session.advance(watched=True)
    moved = session.live.movement
    assert moved is not None
    nodes = {n["name"]: n for n in data["nodes"] if n["op"] == "parameter"}
    assert set(nodes) == {n for n, _ in session.live.model.named_parameters()}
    for name, node in nodes.items():
        assert node["gradient"]["norm"] == pytest.approx(float(moved.gradients[name].norm()), rel=1e-5, abs=1e-7)
    assert data["loss"] == pytest.approx(done.loss, rel=1e-6)
    order = [n["forward"] for n in data["nodes"] if n["forward"] is not None]
    assert order == sorted(order)
    backward = [n["backward"] for n in data["nodes"] if n["backward"] is not None]
    assert sorted(backward) == list(range(len(backward)))
    assert all(i < n["id"] for n in data["nodes"] for i in n["inputs"])


@BOTH
def test_what_flows_into_a_number_adds_up_to_its_sources_gradient(studio, fields) -> None:
    session = advanced(studio(**fields), 6)
    _, data, _ = session.look("graph", None, {})
    linear = next(n for n in data["nodes"] if n["name"].endswith("mlp_fc2") and n["op"] == "linear")
    source = data["nodes"][linear["inputs"][0]]
    target = [0, 1, 3]
    _, _, of_source = session.look("node", None, {"node": source["id"]})
    total = 0.0
    for channel in range(linear["shape"][2]):
        asked = {"node": linear["id"], "index": [0, 1, channel], "count": 256}
        _, number, _ = session.look("scalar", None, asked)
        flows = [o["flow"] for o in number["operands"] if o["node"] == source["id"] and o["index"] == target]
        total += sum(flows)
        products = sum(o["value"] * o["local"] for o in number["operands"] if o["node"] == source["id"])
        assert products == pytest.approx(number["value"], abs=1e-5)
    assert total == pytest.approx(float(of_source["gradient"][1, 3]), abs=1e-6)


@BOTH
def test_finite_differences_agree_with_every_kind_of_node(studio, fields) -> None:
    session = advanced(studio(**fields), 6)
    _, data, _ = session.look("graph", None, {})
    checked = 0
    for node in data["nodes"]:
        if node["gradient"] is None:
            continue
        index = [min(1, size - 1) for size in node["shape"]]
        _, found, _ = session.look("check", None, {"node": node["id"], "index": index})
        assert found["exact"] == pytest.approx(found["numeric"], abs=1e-7, rel=1e-4), node["name"]
        assert found["ok"] or abs(found["gradient"]) < 1e-5, node["name"]
        checked += 1
    assert checked > 30


@BOTH
def test_why_a_weight_moved_adds_up(studio, fields) -> None:
    session = advanced(studio(**fields), 23)
    for step in (1, 23):
        for name, parameter in session.live.model.named_parameters():
            index = [size // 2 for size in parameter.shape]
            _, found, _ = session.look("weight", step, {"name": name, "index": index})
            assert found["error"] < 1e-6, (step, name)
            for when, there in ((step - 1, found["before"]), (step, found["after"])):
                assert there == session.scene(when).model.get_parameter(name)[tuple(index)].item()
    with pytest.raises(UsageError, match="step 0"):
        session.look("weight", 0, {"name": "wte", "index": [0, 0]})


def test_muon_and_adamw_each_explain_their_own(studio) -> None:
    session = advanced(studio(**LARGER), 5)
    _, matrix, _ = session.look("weight", None, {"name": "layer1.mlp_fc1", "index": [3, 3]})
    _, table, _ = session.look("weight", None, {"name": "wte", "index": [3, 3]})
    assert (matrix["optimizer"], table["optimizer"]) == ("muon", "adamw")
    assert {"orthogonalised", "scale", "momentum"} <= {q["name"] for q in matrix["quantities"]}
    assert {"m corrected", "v corrected", "t"} <= {q["name"] for q in table["quantities"]}
    assert all(next(t["value"] for t in w["terms"] if t["name"] == "decay") for w in (matrix, table))


def test_histograms_count_every_number(studio) -> None:
    session = advanced(studio(), 12)
    _, data, tensors = session.look("parameters", None, {"bins": 16})
    for i, matrix in enumerate(data["matrices"]):
        size = torch.tensor(matrix["shape"]).prod()
        assert tensors["weight_counts"][i].sum() == size
        assert tensors["gradient_counts"][i].sum() == size
        assert matrix["update_ratio"] > 0
    _, data, tensors = session.look("parameters", 0, {})
    assert set(tensors) == {"weight_counts", "weight_edges"}
    assert data["matrices"][0]["update_ratio"] is None


@BOTH
def test_the_lens_ends_at_the_models_own_probabilities(studio, fields) -> None:
    session = advanced(studio(**fields), 20)
    for position in (0, 2, -1):
        _, lens, _ = session.look("lens", None, {"position": position})
        _, next_token, tensors = session.look("probabilities", None, {"position": position})
        assert [p["token_id"] for p in lens["layers"][-1]["top"]] == [p["token_id"] for p in next_token["top"][:5]]
        chances = torch.softmax(torch.from_numpy(tensors["logits"]), -1)
        for likely in next_token["top"]:
            assert likely["prob"] == pytest.approx(float(chances[likely["token_id"]]), abs=1e-6)
        assert len(lens["layers"]) == session.recipe.config.model.n_layer + 1


def test_sliders_cut_the_probabilities(studio) -> None:
    session = advanced(studio(), 20)
    _, whole, _ = session.look("probabilities", None, {"count": 27})
    _, few, _ = session.look("probabilities", None, {"top_k": 3})
    _, nucleus, _ = session.look("probabilities", None, {"top_p": 0.5})
    _, cold, _ = session.look("probabilities", None, {"temperature": 0.1})
    assert sum(p["prob"] for p in whole["top"]) == pytest.approx(1)
    assert len(few["top"]) == 3
    assert sum(p["prob"] for p in few["top"]) == pytest.approx(1)
    assert len(nucleus["top"]) < len(whole["top"])
    assert cold["entropy"] < whole["entropy"]


def test_token_losses_are_the_batchs_and_a_story_is_one_of_them(studio) -> None:
    session = advanced(studio(**LARGER), 8)
    _, data, tensors = session.look("tokens", 7, {})
    assert len(data["rows"]) == 3
    assert session.look("graph", 7, {})[1]["loss"] == pytest.approx(data["loss"], rel=1e-5)
    row = data["rows"][1]
    for position in (0, 3):
        _, story, parts = session.look("token", 7, {"row": 1, "position": position})
        if story["loss"] is not None:
            assert story["loss"] == pytest.approx(float(tensors["losses"][1, position]), abs=1e-5)
            assert story["target"] == row["targets"][position]
            assert abs(parts["gradient"].sum()) < 1e-5
            assert not parts["saliency"][position + 1 :].any()


def test_a_knocked_out_head_is_one_that_nobody_reads(studio) -> None:
    session = advanced(studio(**LARGER), 30)
    _, data, tensors = session.look("knockout", None, {"rows": 8})
    assert tensors["effect"].shape == (2, 4)
    model = session.scene(None).model
    name, columns = outputs_of(model, Unit(layer=1, kind="head", index=2))
    with torch.no_grad():
        model.get_parameter(name)[:, columns] = 0
    loss, targets = session.live.loss(model, 8)
    assert data["loss"] + float(tensors["effect"][1, 2]) == pytest.approx(loss, abs=1e-6)
    assert data["targets"] == targets
    off = {"off": [{"layer": 1, "kind": "head", "index": 2}], "rows": 8}
    _, without, later = session.look("knockout", None, off)
    assert without["loss"] == pytest.approx(loss, abs=1e-9)
    assert without["whole"] == data["loss"]
    assert later["effect"][1, 2] == 0
    _, _, effect = session.look("knockout", None, {"kind": "neuron", "layer": 1, "rows": 2})
    assert effect["effect"].shape == (session.metadata("live", "", "", None, 0).hidden,)
    with pytest.raises(ModelError, match="no head 4"):
        session.look("attention", None, {"off": [{"layer": 0, "kind": "head", "index": 4}]})


def test_a_unit_that_is_off_stays_off_while_it_trains(recipe, tmp_path: Path) -> None:
    off = [Unit(layer=0, kind="head", index=1), Unit(layer=1, kind="neuron", index=5)]
    session = advanced(Studio(recipe(**LARGER), tmp_path, off), 10)
    for unit in off:
        name, columns = outputs_of(session.live.model, unit)
        assert not session.live.model.get_parameter(name)[:, columns].any()
    assert session.look("knockout", None, {"rows": 2})[2]["effect"][0, 1] == 0


def test_the_picture_of_embeddings_turns_little_from_step_to_step(studio) -> None:
    session = advanced(studio(), 40)
    before = None
    for step in (10, 20, 30, 40):
        _, data, tensors = session.look("embeddings", step, {})
        points = torch.from_numpy(tensors["points"]).double()
        if before is not None:
            free = torch.linalg.svdvals(points.mT @ before).sum()
            assert float((points * before).sum()) >= 0.98 * float(free)
        before = points
        assert len(data["labels"]) == len(points)
    assert session.look("embeddings", 40, {"dimensions": 3})[2]["points"].shape[1] == 3


def test_a_text_of_ones_own_is_looked_at(studio) -> None:
    session = advanced(studio(), 10)
    _, data, _ = session.look("attention", None, {"text": "anna"})
    assert [t["text"] for t in data["tokens"]] == ["<BOS>", "a", "n", "n", "a"]
    assert session.look("graph", None, {"text": "anna"})[1]["loss"] > 0
    with pytest.raises(UsageError, match="context holds 8"):
        session.look("attention", None, {"text": "annabellalina"})


@pytest.mark.parametrize(
    ("panel", "params"),
    [
        ("nothing", {}), ("attention", {"row": 7}), ("attention", {"rows": 1}), ("node", {"node": 10**6}),
        ("scalar", {"node": 5, "index": [0]}), ("lens", {"position": 10**9}), ("matrix", {"name": "/etc/passwd"}),
        ("weight", {"name": "wte", "index": [1000, 0]}), ("probabilities", {"temperature": float("nan")}),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused(studio, panel: str, params: dict[str, object]) -> None:
    session = advanced(studio(), 2)
    with pytest.raises(UsageError):
        session.look(panel, None, params)


def test_history_makes_room(tmp_path: Path) -> None:
    state = {"weights.w": torch.zeros(1000)}
    history = History(tmp_path, 10, budget=40_000)
    for step in range(0, 400, 10):
        if history.due(step):
            history.record(step, state)
    assert sum(history.sizes.values()) <= 40_000
    assert 0 in history.steps
    assert len(history.steps) >= 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [history.path(s).name for s in history.steps]
    history.path(0).write_bytes(b"no")
    with pytest.raises(ModelError, match="step 0 is gone or damaged"):
        history.load(0)


def test_the_state_of_another_model_is_refused(studio) -> None:
    with pytest.raises(ModelError, match="another model"):
        studio("a").live.restore(studio("b", **LARGER).live.state())


def test_the_loss_is_the_models_own(studio) -> None:
    session = advanced(studio(), 3)
    learner: Learner = session.live
    (batch,) = learner.micro_batches(3)
    mine = float(learner.model.loss(*tensors_of(batch)).detach()) / batch.target_count
    assert session.advance().loss == pytest.approx(mine, rel=1e-6)
