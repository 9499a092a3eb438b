"""What Lightning hands over to be saved comes back bit for bit, and a training that goes on cannot tell."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from microgpt.checkpoints.folder import OPTIMIZER, STATE, verify
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.config.schema import ModelConfig, OptimizerConfig
from microgpt.errors import ModelError
from microgpt.model.gpt import GPT
from microgpt.tokenizer.char import CharTokenizer
from microgpt.training.checkpoint_io import FolderCheckpointIO, from_json, read_state, to_json
from microgpt.training.optimizer import MuonAdamW, make_optimizer
from microgpt.training.schedule import make_schedule

TOKENIZER = CharTokenizer("abcdef")
CONFIG = ModelConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, bias=True, norm="layernorm")
META = {"model": {"trained_on": "abc"}, "state": {"fingerprint": "f00"}}


def fresh(name: str) -> tuple[GPT, MuonAdamW]:
    model = GPT(CONFIG, TOKENIZER.vocab_size)
    model.init_weights(0)
    return model, make_optimizer(model, OptimizerConfig(name=name, learning_rate=0.01, weight_decay=0.1))


def train(model: GPT, optimizer: MuonAdamW, steps: int) -> list[float]:
    losses: list[float] = []
    for _ in range(steps):
        tokens = torch.randint(TOKENIZER.vocab_size, (2, 8))
        loss = model.loss(tokens, torch.roll(tokens, -1, dims=1))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def as_lightning_has_it(optimizer: MuonAdamW, **more: Any) -> dict[str, Any]:
    progress = {
        "step": 3, "tokens": 48, "bad_steps": 0, "validated_at": -1, "elapsed_s": 0.5,
        "schedule": make_schedule(OptimizerConfig(schedule="linear", warmup_steps=0), 9).to_json(),
        "val": {"val/loss": math.nan}, "best": {"loss": math.inf, "bpb": math.inf, "step": 0},
    }  # fmt: skip
    return {
        "progress": progress,
        "optimizer_states": [optimizer.state_dict()],
        "rng": {"torch": torch.get_rng_state()},
        "callbacks": {
            "EarlyStopping": {"best_score": torch.tensor(math.inf), "wait_count": 2, "flags": (True, None)}
        },
        **more,
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_a_training_that_goes_on_from_a_checkpoint_has_the_same_bits(tmp_path: Path, name: str) -> None:
    torch.manual_seed(1)
    model, optimizer = fresh(name)
    train(model, optimizer, 3)
    FolderCheckpointIO(model, TOKENIZER, META).save_checkpoint(as_lightning_has_it(optimizer), tmp_path / "step-3")
    expected = train(model, optimizer, 3)

    torch.manual_seed(99)
    again, other = fresh(name)
    found = FolderCheckpointIO(again, TOKENIZER, META).load_checkpoint(tmp_path / "step-3")
    again.load_state_dict({k.removeprefix("model."): v for k, v in found["state_dict"].items()})
    other.load_state_dict(found["optimizer_states"][0])
    torch.set_rng_state(found["rng"]["torch"])
    assert train(again, other, 3) == expected
    assert all(torch.equal(p, again.get_parameter(n)) for n, p in model.named_parameters())
    assert found["global_step"] == found["progress"]["step"] == 3
    assert math.isnan(found["progress"]["val"]["val/loss"])
    stopping = found["callbacks"]["EarlyStopping"]
    assert torch.equal(stopping["best_score"], torch.tensor(math.inf))
    assert (stopping["wait_count"], stopping["flags"]) == (2, [True, None])


def test_with_averaged_weights_the_model_is_the_average_and_training_goes_on_from_its_own(tmp_path: Path) -> None:
    torch.manual_seed(1)
    model, optimizer = fresh("muon")
    train(model, optimizer, 2)
    average = {n: p.detach() * 0.5 for n, p in model.named_parameters()}
    trained = {n: p.detach().clone() for n, p in model.named_parameters()}
    io = FolderCheckpointIO(model, TOKENIZER, META)
    io.save_checkpoint(as_lightning_has_it(optimizer, average=average), tmp_path / "step-3")
    assert all(torch.equal(p, trained[n]) for n, p in model.named_parameters())
    used = load_weights(open_model(tmp_path / "step-3"))
    assert all(torch.equal(used.get_parameter(n), t) for n, t in average.items())
    found = io.load_checkpoint(tmp_path / "step-3")
    assert all(torch.equal(found["state_dict"][f"model.{n}"], t) for n, t in trained.items())
    assert all(torch.equal(found["average"][n], t) for n, t in average.items())


def test_a_checkpoint_holds_safetensors_and_json_and_no_pickle(tmp_path: Path) -> None:
    model, optimizer = fresh("muon")
    train(model, optimizer, 1)
    path = tmp_path / "step-000003"
    FolderCheckpointIO(model, TOKENIZER, META).save_checkpoint(as_lightning_has_it(optimizer), path)
    assert {p.suffix for p in path.iterdir()} == {".json", ".safetensors"}
    for file in path.glob("*.json"):
        json.loads(file.read_text(), parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert verify(path)["step"] == 3
    assert read_state(path)["fingerprint"] == "f00"
    assert open_model(path).meta["trained_on"] == "abc"


@pytest.mark.parametrize(
    "value",
    [
        1, 1.5, True, None, "x", [], {}, math.inf, -math.inf, [1, [math.inf]], {"a": {"b": -math.inf}},
        0.1 + 0.2, 5e-324, 2**63,
    ],
    ids=str,
)  # fmt: skip
def test_state_comes_back_from_json(value: Any) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert from_json(json.loads(text)) == value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool], ids=str)
def test_tensors_of_one_number_come_back_with_their_type(dtype: torch.dtype) -> None:
    tensor = torch.tensor(1.7).to(dtype)
    found = from_json(json.loads(json.dumps(to_json(tensor), allow_nan=False)))
    assert found.dtype == dtype
    assert torch.equal(found, tensor)


def broken_states() -> dict[str, Any]:
    return {
        "list": [], "null": None, "number": 3, "empty": {}, "no progress": {"version": 1},
        "progress empty": {"version": 1, "progress": {}, "callbacks": {}, "param_groups": []},
        "progress a list": {"version": 1, "progress": [], "callbacks": {}, "param_groups": []},
        "newer": {"version": 99},
        "version a text": {"version": "x"},
        "strange type": {"version": 1, "progress": {"step": {"__scalar__": "nothing_of_torch", "value": 1}}},
        "type a function": {"version": 1, "progress": {"step": {"__scalar__": "load", "value": 1}}},
        "float of a text": {"version": 1, "progress": {"step": {"__float__": "x"}}},
    }  # fmt: skip


@pytest.fixture
def saved(tmp_path: Path) -> tuple[FolderCheckpointIO, Path]:
    model, optimizer = fresh("muon")
    train(model, optimizer, 1)
    io = FolderCheckpointIO(model, TOKENIZER, META)
    io.save_checkpoint(as_lightning_has_it(optimizer), tmp_path / "step-000003")
    return io, tmp_path / "step-000003"


@pytest.mark.parametrize("case", broken_states())
def test_a_training_state_that_is_none_is_one_line(
    saved: tuple[FolderCheckpointIO, Path], sealed: Callable[[Path], None], case: str
) -> None:
    io, path = saved
    (path / STATE).write_text(json.dumps(broken_states()[case]))
    sealed(path)
    with pytest.raises(ModelError) as caught:
        io.load_checkpoint(path)
    assert str(path) in caught.value.what


@pytest.mark.parametrize("name", ["optimizer.x.exp_avg", "optimizer.1", "optimizer.1e3.a"])
def test_an_optimizer_file_with_other_names_is_one_line(
    saved: tuple[FolderCheckpointIO, Path], sealed: Callable[[Path], None], name: str
) -> None:
    from safetensors.torch import load_file, save_file

    io, path = saved
    tensors: dict[str, Tensor] = {**load_file(path / OPTIMIZER), name: torch.zeros(3)}
    save_file(tensors, path / OPTIMIZER)
    sealed(path)
    with pytest.raises(ModelError) as caught:
        io.load_checkpoint(path)
    assert str(path) in caught.value.what


def test_an_exported_model_cannot_be_resumed_from(
    saved: tuple[FolderCheckpointIO, Path], sealed: Callable[[Path], None]
) -> None:
    io, path = saved
    (path / STATE).unlink()
    (path / OPTIMIZER).unlink()
    sealed(path)
    with pytest.raises(ModelError, match="cannot be resumed from"):
        io.load_checkpoint(path)
