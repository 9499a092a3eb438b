"""How text is drawn: filters against an oracle in plain Python, and every way in which a text can end."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.errors import UsageError
from microgpt.inference.generate import Sample, filtered, generate, generated_tokens, penalised, pick
from microgpt.model.gpt import GPT, Cache
from microgpt.tokenizer.char import CharTokenizer

TOKENIZER = CharTokenizer("abcdefgh")
BOS = TOKENIZER.bos
BLOCK = 12
ALL = SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=50)


def drawing(**changes: object) -> SamplingConfig:
    return replace(ALL, **changes)


@pytest.fixture(scope="module")
def model() -> GPT:
    made = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=16, block_size=BLOCK, init="normal", init_std=0.6), 9)
    made.init_weights(3)
    return made.eval()


# ---- the filters


def softmax(values: Sequence[float]) -> list[float]:
    top = max(values)
    powers = [math.exp(v - top) for v in values]
    return [p / sum(powers) for p in powers]


def oracle(logits: Sequence[float], recent: Sequence[int], sampling: SamplingConfig) -> list[float]:
    """The probabilities that tokens are drawn with, a rule at a time."""
    values = list(logits)
    for i in set(recent):
        p = sampling.repetition_penalty
        values[i] = values[i] / p if values[i] > 0 else values[i] * p
    values = [v / sampling.temperature for v in values]
    order = sorted(range(len(values)), key=lambda i: -values[i])
    kept = order[: sampling.top_k] if sampling.top_k else order
    of_kept = dict(zip(kept, softmax([values[i] for i in kept])))
    nucleus, mass = [], 0.0
    for i in kept:
        if mass >= sampling.top_p:
            break
        nucleus.append(i)
        mass += of_kept[i]
    if sampling.top_p == 1:
        nucleus = kept
    likely = [i for i in nucleus if of_kept[i] >= sampling.min_p * of_kept[kept[0]]]
    drawn = dict(zip(likely, softmax([values[i] for i in likely])))
    return [drawn.get(i, 0.0) for i in range(len(values))]


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    size=st.integers(2, 30),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 5, 29, 1000]),
    top_p=st.sampled_from([0.01, 0.3, 0.77, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.033, 0.21, 0.9]),
    penalty=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
)
def test_filters_keep_what_the_oracle_keeps(
    size: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    draw = random.Random(seed)
    logits = [draw.gauss(0, 3) for _ in range(size)]
    recent = draw.choices(range(size), k=draw.randrange(6))
    sampling = drawing(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    kept = filtered(torch.tensor(logits, dtype=torch.float64), recent, sampling)
    found = torch.softmax(kept, -1).tolist()
    assert found == pytest.approx(oracle(logits, recent, sampling), abs=1e-9)


def kept_by(**changes: object) -> list[int]:
    logits = torch.tensor([0.5, 0.25, 0.15, 0.1]).log()
    return torch.isfinite(filtered(logits, [], drawing(**changes))).nonzero().flatten().tolist()


def test_filters_by_hand() -> None:
    assert kept_by() == [0, 1, 2, 3]
    assert kept_by(top_k=2) == [0, 1]
    assert kept_by(top_p=0.4) == [0]
    assert kept_by(top_p=0.6) == [0, 1]
    assert kept_by(top_p=0.9 - 1e-4) == [0, 1, 2]
    assert kept_by(min_p=0.4) == [0, 1]
    assert kept_by(top_p=1e-9) == [0]
    assert kept_by(top_k=2, top_p=0.65) == [0]  # among the two that are left the first has two thirds
    assert kept_by(top_k=3, min_p=0.45) == [0, 1]


def test_the_penalty_makes_tokens_of_either_sign_less_likely() -> None:
    logits = torch.tensor([2.0, -2.0, 0.0, 1.0])
    assert penalised(logits, [0, 1, 2, 1, 0], 2.0).tolist() == [1.0, -4.0, 0.0, 1.0]
    assert penalised(logits, [0, 1], 0.5).tolist() == [4.0, -1.0, 0.0, 1.0]
    assert penalised(logits, [], 2.0).tolist() == logits.tolist()
    assert logits.tolist() == [2.0, -2.0, 0.0, 1.0]  # the model's own are not written to


@pytest.mark.parametrize("penalty", [1.0, 100.0])
def test_temperature_0_takes_the_likeliest_after_the_penalty(penalty: float) -> None:
    logits = torch.tensor([1.0, 3.0, 2.0])
    sampling = drawing(temperature=0.0, repetition_penalty=penalty, top_k=1, top_p=0.1)
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    assert {pick(logits, [1], sampling, generator) for _ in range(20)} == {1 if penalty == 1 else 2}
    assert torch.equal(generator.get_state(), state)


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-38, 1e-300])
def test_a_temperature_near_0_takes_the_likeliest_too(temperature: float) -> None:
    logits = torch.tensor([1.0, 30.0, 20.0, -40.0])
    generator = torch.Generator().manual_seed(0)
    assert pick(logits, [], drawing(temperature=temperature), generator) == 1


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    logits = torch.tensor([0.5, 0.3, 0.2]).log()
    generator = torch.Generator().manual_seed(0)
    counts = Counter(pick(logits, [], ALL, generator) for _ in range(4000))
    assert [counts[i] / 4000 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


# ---- a sequence


def ids_of(model: GPT, sampling: SamplingConfig, prompt: Sequence[int] = (BOS,), seed: int = 1) -> list[int]:
    return list(generated_tokens(model, prompt, sampling, [BOS], seed))


@torch.no_grad()
def by_whole_forwards(model: GPT, sampling: SamplingConfig, prompt: Sequence[int], seed: int) -> list[int]:
    """The same without a cache, everything said again for each token."""
    generator = torch.Generator().manual_seed(seed)
    history, drawn = list(prompt), list[int]()
    while len(drawn) < sampling.max_new_tokens and len(history) <= BLOCK:
        logits = model(torch.tensor([history]))[0, -1]
        if len(drawn) < sampling.min_new_tokens:
            logits[BOS] = -math.inf
        window = history[max(0, len(history) - sampling.repeat_last_n) :]
        token = pick(logits, window, sampling, generator)
        if token == BOS:
            break
        history.append(token)
        drawn.append(token)
    return drawn


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"temperature": 0.0}, {"top_k": 3, "top_p": 0.8, "min_p": 0.05}, {"repetition_penalty": 3.0},
        {"repetition_penalty": 3.0, "repeat_last_n": 2}, {"repetition_penalty": 3.0, "repeat_last_n": 0},
        {"min_new_tokens": 5}, {"min_new_tokens": 99, "temperature": 0.0}, {"max_new_tokens": 3},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("prompt", [(BOS,), (BOS, 1, 2, 3)], ids=["empty", "abc"])
def test_decoding_with_a_cache_draws_what_whole_forwards_draw(
    model: GPT, changes: dict[str, object], prompt: tuple[int, ...]
) -> None:
    sampling = drawing(**changes)
    for seed in range(8):
        assert ids_of(model, sampling, prompt, seed) == by_whole_forwards(model, sampling, prompt, seed)


class Fixed(torch.nn.Module):
    """Says the same logits everywhere; a stand-in for a model whose mind is known."""

    def __init__(self, logits: Sequence[float]) -> None:
        super().__init__()
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=BLOCK)
        self.wte = torch.nn.Parameter(torch.zeros(9, 2))
        self.logits = torch.tensor(logits)

    def forward(self, tokens: Tensor, cache: Cache) -> Tensor:
        cache.length += tokens.shape[1]
        return self.logits.expand(1, tokens.shape[1], -1)


def test_the_penalty_looks_only_as_far_back_as_it_is_told() -> None:
    said: object = Fixed([9.0, 8.0, 7.0, -9, -9, -9, -9, -9, -9])
    greedy = drawing(temperature=0.0, repetition_penalty=3.0, max_new_tokens=6)
    assert ids_of(said, replace(greedy, repeat_last_n=0)) == [0] * 6
    assert ids_of(said, replace(greedy, repeat_last_n=1)) == [0, 1, 0, 1, 0, 1]
    assert ids_of(said, replace(greedy, repeat_last_n=2)) == [0, 1, 2, 0, 1, 2]
    assert ids_of(said, replace(greedy, repeat_last_n=1), [BOS, 0]) == [1, 0, 1, 0, 1, 0]  # the prompt counts


def test_the_end_does_not_come_before_the_least_length() -> None:
    ending: object = Fixed([1.0, 0, 0, 0, 0, 0, 0, 0, 9.0])
    greedy = drawing(temperature=0.0)
    assert ids_of(ending, greedy) == []
    assert ids_of(ending, replace(greedy, min_new_tokens=4)) == [0, 0, 0, 0]


def test_a_sequence_ends_where_the_context_is_full(model: GPT) -> None:
    endless = drawing(min_new_tokens=100, max_new_tokens=100)
    for prompt in ([BOS], [BOS, 1, 2], [BOS] + [1] * (BLOCK - 2)):
        assert len(ids_of(model, endless, prompt)) == BLOCK + 1 - len(prompt)  # the last is drawn, never read


# ---- texts


def texts(model: GPT, sampling: SamplingConfig, prompt: str = "", samples: int | None = None) -> list[Sample]:
    return list(generate(model, TOKENIZER, sampling, prompt, samples))


def test_the_same_seed_gives_the_same_text_and_another_one_another(model: GPT) -> None:
    torch.manual_seed(0)
    first = texts(model, drawing(num_samples=4, seed=5), "ab")
    torch.manual_seed(1)
    assert texts(model, drawing(num_samples=4, seed=5), "ab") == first
    assert texts(model, drawing(num_samples=3, seed=6), "ab") == first[1:]  # the i-th has seed + i
    assert len({sample.text for sample in first}) > 1
    assert texts(model, drawing(num_samples=4, seed=5), "ab", samples=2) == first[:2]


def test_drawing_leaves_the_global_randomness_and_the_mode_of_the_model_alone(model: GPT) -> None:
    state = torch.get_rng_state()
    model.train()
    try:
        list(itertools.islice(generate(model, TOKENIZER, ALL, "a"), 1))
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        model.eval()


def test_a_text_says_how_it_ended(model: GPT) -> None:
    ending: object = Fixed([1.0, 0, 0, 0, 0, 0, 0, 0, 9.0])
    saying: object = Fixed([9.0, 8.0, 0, 0, 0, 0, 0, 0, 1.0])
    greedy = drawing(temperature=0.0, num_samples=1)
    assert texts(ending, greedy, "b") == [Sample("b", "", 0, "end")]
    assert texts(saying, replace(greedy, max_new_tokens=3), "b") == [Sample("b", "aaa", 3, "length")]
    assert texts(saying, greedy, "bb") == [Sample("bb", "a" * (BLOCK - 2), BLOCK - 2, "length")]
    for prompt in ("", "b", "b" * (BLOCK - 2)):  # ended in the last place of the context
        least = replace(greedy, min_new_tokens=BLOCK - 1 - len(prompt))
        assert texts(ending, least, prompt)[0].finish == "end"


def test_a_stop_text_ends_a_sample_and_is_cut_off() -> None:
    saying: object = Fixed([9.0, 8.0, 7.0, 0, 0, 0, 0, 0, 1.0])
    circling = drawing(temperature=0.0, num_samples=1, repetition_penalty=3.0, repeat_last_n=2)  # abcabcabc
    assert texts(saying, replace(circling, stop=["ca"]))[0] == Sample("", "ab", 4, "stop")
    assert texts(saying, replace(circling, stop=["b", "a"]))[0] == Sample("", "", 1, "stop")
    assert texts(saying, replace(circling, stop=["cab", "bc"]))[0] == Sample("", "a", 3, "stop")
    assert texts(saying, replace(circling, stop=["", "x", "ba"]))[0].finish == "length"
    assert texts(saying, replace(circling, stop=["ab"]), "ab")[0].finish == "stop"  # in the text, not the prompt
    assert texts(saying, replace(circling, stop=["ab"]), "ab")[0].text == "c"


@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, 50])
def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(model: GPT, length: int) -> None:
    with pytest.raises(UsageError) as caught:
        texts(model, ALL, "a" * length)
    assert str(length + 1) in caught.value.what
    assert str(BLOCK) in caught.value.what
    assert caught.value.exit_code == 2


def test_the_longest_prompt_that_fits_is_taken(model: GPT) -> None:
    assert len(texts(model, drawing(min_new_tokens=9), "a" * (BLOCK - 2), 1)[0].text) == 2


def test_the_prompt_cannot_hold_a_control_token() -> None:
    with_letters = CharTokenizer("<bos>")
    assert with_letters.bos not in with_letters.encode("<bos>")
