"""The loop: what it trains on, that it repeats itself, and what it invents."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from microgpt.reference import (
    GPT,
    PRESETS,
    CharTokenizer,
    Config,
    Preset,
    Revision,
    Training,
    sample,
    to_arrays,
)

NAMES = ["anna", "bob", "carla", "dan"]
TINY = Preset(config=Config(n_embd=4, n_head=2, block_size=6), max_steps=10)


def test_presets_are_the_two_revisions() -> None:
    assert PRESETS["current"] == Preset(
        config=Config(n_embd=16, n_head=4, n_layer=1, block_size=16, activation="relu", init="current"),
        learning_rate=0.01, beta1=0.85, beta2=0.99, schedule="linear", max_steps=1000,
        temperature=0.5, samples=20,
    )  # fmt: skip
    assert PRESETS["first"] == Preset(
        config=Config(n_embd=16, n_head=4, n_layer=1, block_size=8, activation="relu2", init="first"),
        learning_rate=0.01, beta1=0.9, beta2=0.95, schedule="cosine", max_steps=500,
        temperature=0.5, samples=20,
    )  # fmt: skip


def test_presets_cannot_be_changed_by_accident() -> None:
    with pytest.raises(TypeError):
        PRESETS["current"] = TINY  # type: ignore[index]


def test_documents_come_in_shuffled_order_and_start_over() -> None:
    training = Training(NAMES, TINY, seed=1)
    order = list(NAMES)
    Random(1).shuffle(order)
    assert order != NAMES
    assert [step.document for step in training.steps()] == (order * 3)[:10]


def test_the_callers_list_is_left_alone() -> None:
    names = list(NAMES)
    Training(names, TINY)
    assert names == NAMES


@pytest.mark.parametrize("revision", ["current", "first"])
def test_a_seed_decides_everything(revision: Revision) -> None:
    def run(seed: int) -> tuple[list[float], list[str]]:
        training = Training(NAMES, replace(PRESETS[revision], max_steps=3), seed)
        return [step.loss for step in training.steps()], [training.sample() for _ in range(5)]

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_global_random_numbers_are_neither_used_nor_disturbed() -> None:
    import random

    random.seed(0)
    state = random.getstate()
    next(Training(NAMES, TINY).steps())
    assert random.getstate() == state


@pytest.mark.parametrize("revision", ["current", "first"])
def test_it_learns_a_single_name_by_heart(revision: Revision) -> None:
    training = Training(["ada"], replace(PRESETS[revision], max_steps=80))
    losses = [step.loss for step in training.steps()]
    assert losses[0] > 0.9
    assert losses[-1] < 0.1
    assert training.sample(temperature=0.01) == "ada"


def test_steps_end_with_the_schedule_and_go_on_where_they_stopped() -> None:
    training = Training(NAMES, TINY)
    numbers = [step.number for step, _ in zip(training.steps(), range(4))]
    assert numbers == [1, 2, 3, 4]
    remaining = [step.number for step in training.steps()]
    assert remaining[-1] == 10
    assert list(training.steps()) == []


def test_the_rate_reported_is_that_of_the_schedule() -> None:
    rates = [step.learning_rate for step in Training(NAMES, TINY).steps()]
    assert rates == pytest.approx([0.01 * (1 - i / 10) for i in range(10)])


def test_a_long_document_is_cut_to_the_block() -> None:
    long, cut = (Training([text, "abcdefghi"], TINY) for text in ("abcdefghi", "abcdefgih"))
    assert [s.loss for s in long.steps()] == [s.loss for s in cut.steps()]


def test_no_documents_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Training([], TINY)


def untrained() -> tuple[GPT, CharTokenizer]:
    tokenizer = CharTokenizer(NAMES)
    config = Config(n_embd=4, n_head=2, block_size=6, vocab_size=tokenizer.vocab_size)
    return GPT.initial(config, Random(0)), tokenizer


def test_samples_hold_known_characters_and_never_exceed_the_block() -> None:
    model, tokenizer = untrained()
    rng = Random(0)
    texts = [sample(model, tokenizer, rng, 1.0) for _ in range(100)]
    assert set("".join(texts)) <= set(tokenizer.characters)
    assert max(map(len, texts)) == 6
    assert min(map(len, texts)) < 6


def test_cold_samples_are_all_the_likeliest_and_hot_ones_vary() -> None:
    model, tokenizer = untrained()
    assert len({sample(model, tokenizer, Random(seed), 1e-300) for seed in range(20)}) == 1
    assert len({sample(model, tokenizer, Random(seed), 100.0) for seed in range(20)}) > 15


def test_sampling_follows_the_probabilities_of_the_model() -> None:
    from microgpt.reference import Cache, Value, softmax

    model, tokenizer = untrained()
    for weight in model.parameters():
        weight.data *= 10
    logits = model.forward(tokenizer.bos, 0, Cache(1))
    expected = [p.data for p in softmax([Value(x.data / 0.7) for x in logits])]
    rng, counts = Random(3), [0] * tokenizer.vocab_size
    for _ in range(3000):
        text = sample(model, tokenizer, rng, 0.7)
        counts[tokenizer.encode(text)[1]] += 1
    assert [count / 3000 for count in counts] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_not_above_zero_is_refused(temperature: float) -> None:
    model, tokenizer = untrained()
    with pytest.raises(ValueError, match="temperature"):
        sample(model, tokenizer, Random(0), temperature)
    with pytest.raises(ValueError, match="temperature"):
        Training(NAMES, TINY).sample(temperature)


def test_sampling_leaves_the_weights_alone() -> None:
    training = Training(NAMES, TINY)
    before = to_arrays(training.model)
    training.sample()
    assert to_arrays(training.model) == before
