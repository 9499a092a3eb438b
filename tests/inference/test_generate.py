"""How texts are written: a sequence against whole forwards of the plain model, and every way in which a text ends."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.errors import UsageError
from microgpt.inference.engine import Engine, Request, Token
from microgpt.inference.generate import Sample, generate
from microgpt.inference.sampling import Drawing, next_tokens
from microgpt.inference.torch_backend import engine_of
from microgpt.model.gpt import GPT
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


@pytest.fixture(scope="module")
def engine(model: GPT) -> Engine:
    return engine_of(model, 4)


# ---- a sequence


def ids_of(engine: Engine, sampling: SamplingConfig, prompt: Sequence[int] = (BOS,), seed: int = 1) -> list[int]:
    events = engine.stream(Request(prompt, sampling, [BOS], seed))
    return [event.id for event in events if isinstance(event, Token)]


@torch.no_grad()
def by_whole_forwards(model: GPT, sampling: SamplingConfig, prompt: Sequence[int], seed: int) -> list[int]:
    """The same without a cache, everything said again for each token."""
    drawing = Drawing(sampling, prompt, [BOS], seed)
    while drawing.count < sampling.max_new_tokens and len(drawing.history) <= BLOCK:
        logits = model(torch.tensor([drawing.history]))[0, -1:].numpy()
        token = next_tokens(logits.copy(), [drawing])[0]
        if token == BOS:
            break
        drawing.take(token)
    return drawing.history[len(prompt) :]


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"temperature": 0.0}, {"top_k": 3, "top_p": 0.8, "min_p": 0.05}, {"repetition_penalty": 3.0},
        {"repetition_penalty": 3.0, "repeat_last_n": 2}, {"repetition_penalty": 3.0, "repeat_last_n": 0},
        {"min_new_tokens": 5}, {"min_new_tokens": 99, "temperature": 0.0}, {"max_new_tokens": 3},
        {"frequency_penalty": 1.5, "presence_penalty": 0.5},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("prompt", [(BOS,), (BOS, 1, 2, 3)], ids=["empty", "abc"])
def test_decoding_with_a_cache_draws_what_whole_forwards_draw(
    model: GPT, engine: Engine, changes: dict[str, object], prompt: tuple[int, ...]
) -> None:
    sampling = drawing(**changes)
    for seed in range(8):
        assert ids_of(engine, sampling, prompt, seed) == by_whole_forwards(model, sampling, prompt, seed)


class Fixed:
    """A backend that says the same logits everywhere: a model whose mind is known."""

    def __init__(self, logits: Sequence[float]) -> None:
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=BLOCK)
        self.vocab_size = len(logits)
        self.logits = np.array(logits, np.float32)

    def prefill(self, row: int, ids: Sequence[int]) -> np.ndarray:
        return self.logits.copy()

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        return np.tile(self.logits, (len(tokens), 1))

    def move(self, source: int, target: int) -> None:
        assert source > target


def fixed(*logits: float) -> Engine:
    return Engine(Fixed(logits), 2)


def test_the_penalty_looks_only_as_far_back_as_it_is_told() -> None:
    said = fixed(9.0, 8.0, 7.0, -9, -9, -9, -9, -9, -9)
    greedy = drawing(temperature=0.0, repetition_penalty=3.0, max_new_tokens=6)
    assert ids_of(said, replace(greedy, repeat_last_n=0)) == [0] * 6
    assert ids_of(said, replace(greedy, repeat_last_n=1)) == [0, 1, 0, 1, 0, 1]
    assert ids_of(said, replace(greedy, repeat_last_n=2)) == [0, 1, 2, 0, 1, 2]
    assert ids_of(said, replace(greedy, repeat_last_n=1), [BOS, 0]) == [1, 0, 1, 0, 1, 0]  # the prompt counts


def test_the_end_does_not_come_before_the_least_length() -> None:
    ending = fixed(1.0, 0, 0, 0, 0, 0, 0, 0, 9.0)
    greedy = drawing(temperature=0.0)
    assert ids_of(ending, greedy) == []
    assert ids_of(ending, replace(greedy, min_new_tokens=4)) == [0, 0, 0, 0]


def test_a_sequence_ends_where_the_context_is_full(engine: Engine) -> None:
    endless = drawing(min_new_tokens=100, max_new_tokens=100)
    for prompt in ([BOS], [BOS, 1, 2], [BOS] + [1] * (BLOCK - 2)):
        assert len(ids_of(engine, endless, prompt)) == BLOCK + 1 - len(prompt)  # the last is drawn, never read


# ---- texts


def texts(engine: Engine, sampling: SamplingConfig, prompt: str = "", samples: int | None = None) -> list[Sample]:
    return list(generate(engine, TOKENIZER, sampling, prompt, samples))


def test_the_same_seed_gives_the_same_text_and_another_one_another(engine: Engine) -> None:
    torch.manual_seed(0)
    first = texts(engine, drawing(num_samples=4, seed=5), "ab")
    torch.manual_seed(1)
    assert texts(engine, drawing(num_samples=4, seed=5), "ab") == first
    assert texts(engine, drawing(num_samples=3, seed=6), "ab") == first[1:]  # the i-th has seed + i
    assert len({sample.text for sample in first}) > 1
    assert texts(engine, drawing(num_samples=4, seed=5), "ab", samples=2) == first[:2]


def test_drawing_leaves_the_global_randomness_and_the_mode_of_the_model_alone(model: GPT) -> None:
    state = torch.get_rng_state()
    model.train()
    try:
        list(itertools.islice(generate(engine_of(model, 1), TOKENIZER, ALL, "a"), 1))
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
    finally:
        model.eval()


def test_a_text_says_how_it_ended(engine: Engine) -> None:
    ending = fixed(1.0, 0, 0, 0, 0, 0, 0, 0, 9.0)
    saying = fixed(9.0, 8.0, 0, 0, 0, 0, 0, 0, 1.0)
    greedy = drawing(temperature=0.0, num_samples=1)
    assert texts(ending, greedy, "b") == [Sample("b", "", 0, "end")]
    assert texts(saying, replace(greedy, max_new_tokens=3), "b") == [Sample("b", "aaa", 3, "length")]
    assert texts(saying, greedy, "bb") == [Sample("bb", "a" * (BLOCK - 2), BLOCK - 2, "length")]
    for prompt in ("", "b", "b" * (BLOCK - 2)):  # ended in the last place of the context
        least = replace(greedy, min_new_tokens=BLOCK - 1 - len(prompt))
        assert texts(ending, least, prompt)[0].finish == "end"


def test_a_stop_text_ends_a_sample_and_is_cut_off() -> None:
    saying = fixed(9.0, 8.0, 7.0, 0, 0, 0, 0, 0, 1.0)
    circling = drawing(temperature=0.0, num_samples=1, repetition_penalty=3.0, repeat_last_n=2)  # abcabcabc
    assert texts(saying, replace(circling, stop=["ca"]))[0] == Sample("", "ab", 4, "stop")
    assert texts(saying, replace(circling, stop=["b", "a"]))[0] == Sample("", "", 1, "stop")
    assert texts(saying, replace(circling, stop=["cab", "bc"]))[0] == Sample("", "a", 3, "stop")
    assert texts(saying, replace(circling, stop=["", "x", "ba"]))[0].finish == "length"
    assert texts(saying, replace(circling, stop=["ab"]), "ab")[0].finish == "stop"  # in the text, not the prompt
    assert texts(saying, replace(circling, stop=["ab"]), "ab")[0].text == "c"


@pytest.mark.parametrize("length", [BLOCK - 1, BLOCK, 50])
def test_a_prompt_that_does_not_fit_is_refused_with_both_numbers(engine: Engine, length: int) -> None:
    with pytest.raises(UsageError) as caught:
        texts(engine, ALL, "a" * length)
    assert str(length + 1) in caught.value.what
    assert str(BLOCK) in caught.value.what
    assert caught.value.exit_code == 2


def test_the_longest_prompt_that_fits_is_taken(engine: Engine) -> None:
    assert len(texts(engine, drawing(min_new_tokens=9), "a" * (BLOCK - 2), 1)[0].text) == 2


def test_the_prompt_cannot_hold_a_control_token() -> None:
    with_letters = CharTokenizer("<bos>")
    assert with_letters.bos not in with_letters.encode("<bos>")
