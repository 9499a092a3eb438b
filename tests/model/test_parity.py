"""The fast model against the scalar one of microgpt.reference: same weights, same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microgpt.config.compose import compose
from microgpt.config.schema import ModelConfig, OptimizerConfig
from microgpt.model.gpt import GPT
from microgpt.reference import GPT as Scalar
from microgpt.reference import (
    PRESETS,
    Arrays,
    Cache,
    Config,
    Revision,
    Training,
    embedded_names,
    gradients_to_arrays,
    read_documents,
    to_arrays,
)
from microgpt.training.optimizer import make_optimizer
from microgpt.training.schedule import make_schedule

REVISIONS: list[tuple[str, Revision]] = [("micro", "current"), ("micro_first", "first")]


def twin(scalar: Scalar, config: ModelConfig) -> GPT:
    """The fast model in float64 with the scalar one's weights; every tensor must find its place."""
    model = GPT(config, scalar.config.vocab_size).double()
    state = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in to_arrays(scalar).items()}
    model.load_state_dict(state, strict=True)
    return model


def scalar_logits(scalar: Scalar, tokens: Sequence[int]) -> Tensor:
    cache = Cache(scalar.config.n_layer)
    rows = [[v.data for v in scalar.forward(t, i, cache)] for i, t in enumerate(tokens)]
    return torch.tensor(rows, dtype=torch.float64)


def loss_of(model: GPT, tokens: Sequence[int]) -> Tensor:
    """Mean nats a token of one document, cut to the context as the reference cuts it."""
    count = min(model.config.block_size, len(tokens) - 1)
    return model.loss(torch.tensor([tokens[:count]]), torch.tensor([tokens[1 : count + 1]])) / count


def assert_gradients(model: GPT, expected: Arrays) -> None:
    found = {name: p.grad for name, p in model.named_parameters()}
    wanted = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in expected.items()}
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)


def assert_equal_in_all(scalar: Scalar, model: GPT, tokens: Sequence[int]) -> None:
    count = min(model.config.block_size, len(tokens) - 1)
    with torch.no_grad():
        logits = model(torch.tensor([tokens[:count]]))[0]
    torch.testing.assert_close(logits, scalar_logits(scalar, tokens[:count]), rtol=0, atol=1e-6)
    expected = scalar.loss(tokens)
    expected.backward()
    loss = loss_of(model, tokens)
    loss.backward()
    assert loss.item() == pytest.approx(expected.data, abs=1e-6)
    assert_gradients(model, gradients_to_arrays(scalar))


def perturbed(scalar: Scalar, seed: int) -> Scalar:
    """Weights of a size at which nothing is linear any more, zero matrices filled too."""
    rng = Random(seed)
    for value in scalar.parameters():
        value.data += rng.gauss(0.0, 0.4)
    return scalar


@pytest.mark.parametrize("trained", [False, True], ids=["initial", "perturbed"])
@pytest.mark.parametrize(("preset", "revision"), REVISIONS)
def test_presets_have_the_logits_loss_and_gradients_of_the_reference(
    preset: str, revision: Revision, trained: bool
) -> None:
    scalar = Scalar.initial(PRESETS[revision].config, Random(42))
    if trained:
        perturbed(scalar, 1)
    model = twin(scalar, compose([f"model={preset}"]).model)
    assert_equal_in_all(scalar, model, [26, 4, 12, 12, 0, 26])
    model.zero_grad()
    for value in scalar.parameters():
        value.grad = 0.0
    longer = [26, *Random(7).choices(range(26), k=model.config.block_size + 3), 26]
    assert_equal_in_all(scalar, model, longer)


@settings(max_examples=20, deadline=None, derandomize=True, database=None)
@given(
    heads=st.integers(1, 3),
    head_width=st.integers(1, 4),
    layers=st.integers(1, 3),
    block=st.integers(2, 5),
    vocab=st.integers(2, 6),
    revision=st.sampled_from(REVISIONS),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_small_shape_has_the_logits_loss_and_gradients_of_the_reference(
    heads: int,
    head_width: int,
    layers: int,
    block: int,
    vocab: int,
    revision: tuple[str, Revision],
    seed: int,
) -> None:
    shape = {"n_embd": heads * head_width, "n_head": heads, "n_layer": layers, "block_size": block}
    first = PRESETS[revision[1]].config
    small = Config(**shape, vocab_size=vocab, activation=first.activation, init=first.init)
    scalar = perturbed(Scalar.initial(small, Random(seed)), seed)
    config = compose([f"model={revision[0]}"]).model
    for key, value in shape.items():
        setattr(config, key, value)
    assert_equal_in_all(scalar, twin(scalar, config), Random(seed).choices(range(vocab), k=block + 1))


@pytest.mark.parametrize(("preset", "revision"), REVISIONS)
def test_100_steps_of_training_have_the_losses_of_the_reference(preset: str, revision: Revision) -> None:
    settings_of = PRESETS[revision]
    training = Training(read_documents(embedded_names()), settings_of, seed=42)
    model = twin(training.model, compose([f"model={preset}"]).model)
    config = OptimizerConfig(
        name="adamw", learning_rate=settings_of.learning_rate, beta1=settings_of.beta1, beta2=settings_of.beta2,
        eps=1e-8, weight_decay=0.0, grad_clip=0.0, schedule=settings_of.schedule, warmup_steps=0,
    )  # fmt: skip
    optimizer = make_optimizer(model, config)
    schedule = make_schedule(config, settings_of.max_steps)
    for number in range(100):
        step = training.step()
        loss = loss_of(model, training.tokenizer.encode(step.document))
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule.factor(number)
        optimizer.step()
        optimizer.zero_grad()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(step.learning_rate, abs=1e-12)
        assert loss.item() == pytest.approx(step.loss, abs=1e-5), f"step {number + 1}"
    weights = {name: torch.tensor(rows, dtype=torch.float64) for name, rows in to_arrays(training.model).items()}
    torch.testing.assert_close({n: p.detach() for n, p in model.named_parameters()}, weights, rtol=0, atol=1e-5)
