"""Muon and AdamW move weights as their papers say."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from microgpt.config.compose import compose
from microgpt.config.schema import OptimizerConfig
from microgpt.model.gpt import GPT
from microgpt.training.optimizer import make_optimizer, orthogonalised
from microgpt.training.schedule import extended, make_schedule


@given(st.integers(2, 24), st.integers(2, 24), st.integers(1, 4), st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_newton_schulz_brings_all_singular_values_near_one(rows: int, columns: int, count: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left = torch.linalg.qr(torch.randn(count, rows, rows, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(count, columns, columns, generator=generator))[0]
    size = min(rows, columns)
    middle = torch.zeros(count, rows, columns)
    middle[:, range(size), range(size)] = 0.3 + torch.rand(count, size, generator=generator)
    found = torch.linalg.svdvals(orthogonalised(left @ middle @ right))
    assert found.min() > 0.5
    assert found.max() < 1.4


@given(st.integers(1, 40), st.integers(1, 90), st.floats(0, 6), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_newton_schulz_is_the_published_iteration_whatever_the_shape(
    rows: int, columns: int, decay: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(1, rows, columns, generator=generator) * torch.logspace(0, -decay, columns)
    x = matrix.double().mT if rows > columns else matrix.double()
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        gram = x @ x.mT
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    found = orthogonalised(matrix)
    assert found.shape == matrix.shape
    assert torch.allclose(found.double(), x.mT if rows > columns else x, atol=1e-3)


def test_adamw_equals_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(8, 4), nn.Linear(8, 4)
    theirs.load_state_dict(ours.state_dict())
    config = OptimizerConfig(name="adamw", learning_rate=0.01, weight_decay=0.1)
    mine = make_optimizer(ours, config)
    groups = [{"params": [theirs.weight], "weight_decay": 0.1}, {"params": [theirs.bias], "weight_decay": 0.0}]
    reference = torch.optim.AdamW(groups, lr=0.01, betas=(config.beta1, config.beta2), eps=config.eps)
    for _ in range(10):
        x = torch.randn(5, 8)
        for model, optimizer in ((ours, mine), (theirs, reference)):
            optimizer.zero_grad()
            model(x).square().sum().backward()
            optimizer.step()
    assert torch.allclose(ours.weight, theirs.weight, atol=1e-7)
    assert torch.allclose(ours.bias, theirs.bias, atol=1e-7)


def test_every_parameter_is_in_one_group_and_matrices_of_layers_go_to_muon() -> None:
    model = GPT(compose(["model=small"]).model, 100)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.01))
    held = [id(p) for g in optimizer.param_groups for p in g["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    muon = {id(p) for g in optimizer.param_groups if g["kind"] == "muon" for p in g["params"]}
    for name, parameter in model.named_parameters():
        assert (id(parameter) in muon) == (name.startswith("layer") and parameter.dim() == 2), name


def test_state_survives_save_and_load_bit_by_bit() -> None:
    torch.manual_seed(0)
    model = GPT(compose(["model=tiny"]).model, 50)
    model.init_weights(1)
    optimizer = make_optimizer(model, OptimizerConfig(learning_rate=0.01))

    def step() -> None:
        x = torch.randint(0, 50, (2, 16), generator=torch.Generator().manual_seed(5))
        optimizer.zero_grad()
        model.loss(x[:, :-1], x[:, 1:]).backward()
        optimizer.step()

    step()
    weights = {k: v.clone() for k, v in model.state_dict().items()}
    state = optimizer.state_dict()
    copied = {"state": {k: {n: t.clone() for n, t in v.items()} for k, v in state["state"].items()},
              "param_groups": state["param_groups"]}  # fmt: skip
    step()
    once = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(weights)
    optimizer.load_state_dict(copied)
    step()
    assert all(torch.equal(once[k], v) for k, v in model.state_dict().items())


@pytest.mark.parametrize("shape", ["linear", "cosine", "wsd", "constant"])
def test_schedules_rise_then_fall_to_their_end(shape: str) -> None:
    schedule = make_schedule(
        OptimizerConfig(schedule=shape, warmup_steps=10, final_lr_ratio=0.1, decay_fraction=0.5), 100
    )
    factors = [schedule.factor(s) for s in range(100)]
    assert factors[:10] == pytest.approx([(s + 1) / 10 for s in range(10)])
    assert max(factors) == pytest.approx(1.0)
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(factors[10:]))
    assert factors[-1] == pytest.approx(1.0 if shape == "constant" else 0.1, abs=0.02)
    if shape == "wsd":
        assert factors[45] == 1.0, "stable until half of the run is left"


def test_linear_without_warmup_is_prior_arts() -> None:
    schedule = make_schedule(OptimizerConfig(schedule="linear", warmup_steps=0), 1000)
    assert [schedule.factor(s) for s in (0, 1, 999)] == pytest.approx([1.0, 0.999, 0.001])


@pytest.mark.parametrize("done", [1, 37, 100])
@pytest.mark.parametrize("shape", ["linear", "cosine", "wsd"])
def test_extending_does_not_jump(done: int, shape: str) -> None:
    schedule = make_schedule(OptimizerConfig(schedule=shape, warmup_steps=0), 100)
    longer, words = extended(schedule, done, 50)
    assert longer.end == done + 50
    assert words
    steps = [longer.factor(s) for s in range(max(0, done - 2), done + 50)]
    assert max(abs(a - b) for a, b in itertools.pairwise(steps)) < 0.11
    assert steps[-1] < 0.05
