"""The choice of a token against an oracle in plain Python, for chosen random numbers."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.config.schema import SamplingConfig
from microgpt.inference.sampling import Drawing, log_probabilities, next_tokens

ALL = SamplingConfig(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=50)


def drawing(**changes: object) -> SamplingConfig:
    return replace(ALL, **changes)


class Chosen:
    """Random numbers that are not."""

    def __init__(self, number: float) -> None:
        self.number = number

    def random(self) -> float:
        return self.number


def pick(
    logits: Sequence[float], recent: Sequence[int], sampling: SamplingConfig, number: float | None = None, **more: Any
) -> int:
    """One token; the prompt is what the penalty looks at."""
    one = Drawing(sampling, list(recent), more.pop("ends", []), more.pop("seed", 0), **more)
    if number is not None:
        one.numbers = Chosen(number)  # type: ignore[assignment]
    return next_tokens(np.array([logits], np.float32), [one])[0]


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


def columns(sampling: SamplingConfig, logits: Sequence[float], recent: Sequence[int]) -> list[int]:
    """The order in which tokens share out the numbers from 0 to 1: by logit where they were sorted, else by id."""
    if sampling.top_p == 1 and not 0 < sampling.top_k < len(logits):
        return list(range(len(logits)))
    p = sampling.repetition_penalty
    after = [v if i not in recent else v / p if v > 0 else v * p for i, v in enumerate(logits)]
    return sorted(range(len(logits)), key=lambda i: -after[i])


@settings(max_examples=300, deadline=None, derandomize=True, database=None)
@given(
    size=st.sampled_from([2, 3, 7, 30, 600]),
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.1, 0.7, 1.0, 2.5]),
    top_k=st.sampled_from([0, 1, 2, 5, 29, 1000]),
    top_p=st.sampled_from([0.01, 0.3, 0.77, 0.95, 1.0]),
    min_p=st.sampled_from([0.0, 0.033, 0.21, 0.9]),
    penalty=st.sampled_from([0.5, 1.0, 1.3, 4.0]),
)
def test_tokens_are_those_of_the_oracle(
    size: int, seed: int, temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    draw = random.Random(seed)
    logits = np.array([draw.gauss(0, 3) for _ in range(size)], np.float32).tolist()
    recent = draw.choices(range(size), k=draw.randrange(6))
    sampling = drawing(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty)
    chances = oracle(logits, recent, sampling)
    at = 0.0
    for token in columns(sampling, logits, recent):
        if chances[token] > 1e-4:  # in the middle of its share, rounding cannot tell another
            assert pick(logits, recent, sampling, at + chances[token] / 2) == token
        at += chances[token]


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.integers(0, 10**6))
def test_a_row_is_drawn_among_others_as_alone(seed: int) -> None:
    draw = random.Random(seed)
    size = draw.choice([5, 40, 700])
    rows = [
        (
            [draw.gauss(0, 3) for _ in range(size)],
            drawing(
                temperature=draw.choice([0.0, 0.5, 1.3]),
                top_k=draw.choice([0, 1, 3, 300]),
                top_p=draw.choice([0.4, 0.99, 1.0]),
                min_p=draw.choice([0.0, 0.1]),
                repetition_penalty=draw.choice([1.0, 1.4]),
            ),
            draw.choices(range(size), k=3),
        )
        for _ in range(draw.randrange(1, 7))
    ]
    drawings = [Drawing(s, prompt, [], i) for i, (_, s, prompt) in enumerate(rows)]
    together = next_tokens(np.array([logits for logits, _, _ in rows], np.float32), drawings)
    assert together == [pick(logits, prompt, s, seed=i) for i, (logits, s, prompt) in enumerate(rows)]


def kept_by(**changes: object) -> list[int]:
    logits = [math.log(p) for p in (0.5, 0.25, 0.15, 0.1)]
    return sorted({pick(logits, [], drawing(**changes), i / 1000) for i in range(1000)})


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
    def after(penalty: float, prompt: Sequence[int]) -> list[float]:
        logits = np.array([2.0, -2.0, 0.0, 1.0], np.float32)
        Drawing(drawing(repetition_penalty=penalty), prompt, [], 0).adjust(logits)
        return logits.tolist()

    assert after(2.0, [0, 1, 2, 1, 0]) == [1.0, -4.0, 0.0, 1.0]
    assert after(0.5, [0, 1]) == [4.0, -1.0, 0.0, 1.0]
    assert after(2.0, []) == [2.0, -2.0, 0.0, 1.0]


def test_frequency_and_presence_count_what_was_written_and_not_the_prompt() -> None:
    one = Drawing(drawing(frequency_penalty=0.5, presence_penalty=0.25), [0, 0, 0], [], 0)
    for token in (1, 1, 2):
        one.take(token)
    logits = np.zeros(4, np.float32)
    one.adjust(logits)
    assert logits.tolist() == [0.0, -1.25, -0.75, 0.0]


def test_a_bias_moves_a_token() -> None:
    greedy = drawing(temperature=0.0)
    assert pick([1.0, 3.0, 2.0], [], greedy) == 1
    assert pick([1.0, 3.0, 2.0], [], greedy, bias={1: -100, 0: 1.5}) == 0


def test_the_end_is_held_back_until_the_least_length() -> None:
    assert pick([1.0, 3.0, 2.0], [], drawing(temperature=0.0, min_new_tokens=1), ends=[1]) == 2
    assert pick([1.0, 3.0, 2.0], [], drawing(temperature=0.0), ends=[1]) == 1


@pytest.mark.parametrize("penalty", [1.0, 100.0])
def test_temperature_0_takes_the_likeliest_after_the_penalty(penalty: float) -> None:
    sampling = drawing(temperature=0.0, repetition_penalty=penalty, top_k=1, top_p=0.1)
    one = Drawing(sampling, [1], [], 0)
    state = one.numbers.bit_generator.state
    assert next_tokens(np.array([[1.0, 3.0, 2.0]], np.float32), [one]) == [1 if penalty == 1 else 2]
    assert str(one.numbers.bit_generator.state) == str(state)  # no number was drawn


@pytest.mark.parametrize("temperature", [1e-3, 1e-10, 1e-38, 1e-300])
def test_a_temperature_near_0_takes_the_likeliest_too(temperature: float) -> None:
    assert pick([1.0, 30.0, 20.0, -40.0], [], drawing(temperature=temperature)) == 1


def test_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    one = Drawing(ALL, [], [], 0)
    logits = np.log(np.array([[0.5, 0.3, 0.2]], np.float32))
    counts = Counter(next_tokens(logits.copy(), [one])[0] for _ in range(4000))
    assert [counts[i] / 4000 for i in range(3)] == pytest.approx([0.5, 0.3, 0.2], abs=0.03)


def test_log_probabilities_are_those_of_the_model() -> None:
    logits = np.log(np.array([0.1, 0.5, 0.25, 0.15], np.float32)) + 7
    one, best = log_probabilities(logits, 3, 2)
    assert one == pytest.approx(math.log(0.15), abs=1e-6)
    assert [i for i, _ in best] == [1, 2]
    assert [v for _, v in best] == pytest.approx([math.log(0.5), math.log(0.25)], abs=1e-6)
    assert log_probabilities(logits, 0, 0)[1] == []
    assert [i for i, _ in log_probabilities(logits, 0, 99)[1]] == [1, 2, 3, 0]
