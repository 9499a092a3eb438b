"""Sequences that come and go: who is written with whom, in which order, and how each one ends."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.inference.engine import PROMPT_BUDGET, Engine, Finish, Request, Token

VOCAB, BLOCK, END = 64, 64, 63
GREEDY = SamplingConfig(temperature=0, max_new_tokens=5)


class Counting:
    """A backend that says the token after the last one, and remembers what was asked of it."""

    def __init__(self, rows: int, block: int = BLOCK) -> None:
        self.config = ModelConfig(n_layer=1, n_head=1, n_embd=2, block_size=block)
        self.vocab_size = VOCAB
        self.texts: list[list[int]] = [[] for _ in range(rows)]
        self.asked: list[str] = []

    def _logits(self, ids: Sequence[int]) -> np.ndarray:
        logits = np.zeros((len(ids), VOCAB), np.float32)
        logits[np.arange(len(ids)), (np.array(ids) + 1) % VOCAB] = 9
        return logits

    def prefill(self, row: int, ids: Sequence[int]) -> np.ndarray:
        self.asked.append(f"prompt of {len(ids)} in {row}")
        self.texts[row] = list(ids)
        return self._logits([ids[-1]])[0]

    def decode(self, tokens: Sequence[int]) -> np.ndarray:
        self.asked.append(f"{len(tokens)} rows")
        for text, token in zip(self.texts, tokens):
            text.append(token)
            assert (text[-1] - text[-2]) % VOCAB == 1, "a row got the token of another one"
        return self._logits(tokens)

    def move(self, source: int, target: int) -> None:
        self.texts[target] = list(self.texts[source])


class Heard:
    """What a listener was told."""

    def __init__(self) -> None:
        self.ids: list[int] = []
        self.finish: Finish | None = None

    def __call__(self, event: Token | Finish) -> None:
        assert self.finish is None, "something came after the end"
        if isinstance(event, Finish):
            self.finish = event
        else:
            self.ids.append(event.id)


def run(engine: Engine) -> int:
    steps = 1
    while engine.step():
        steps += 1
    return steps


def test_a_sequence_is_written_to_its_limit() -> None:
    engine, heard = Engine(Counting(2), 2), Heard()
    engine.submit(Request([10], GREEDY, [END]), heard)
    run(engine)
    assert heard.ids == [11, 12, 13, 14, 15]
    assert heard.finish == Finish("length")


def test_an_end_token_ends_and_is_told_but_not_written() -> None:
    engine, heard = Engine(Counting(2), 2), Heard()
    engine.submit(Request([60], replace(GREEDY, max_new_tokens=50), [END]), heard)
    run(engine)
    assert heard.ids == [61, 62]
    assert heard.finish == Finish("end", END)


def test_who_comes_later_gets_a_token_before_who_is_there_has_ended() -> None:
    engine, first, second = Engine(Counting(4), 4), Heard(), Heard()
    engine.submit(Request([0], replace(GREEDY, max_new_tokens=40), []), first)
    for _ in range(5):
        engine.step()
    engine.submit(Request([30], GREEDY, []), second)
    engine.step()
    assert second.ids[:1] == [31]
    assert first.finish is None
    run(engine)
    assert len(first.ids) == 40
    assert second.ids == [31, 32, 33, 34, 35]


def test_more_than_there_are_rows_wait_in_line_and_take_free_rows() -> None:
    backend = Counting(2)
    engine, heard = Engine(backend, 2), [Heard() for _ in range(5)]
    for i, one in enumerate(heard):
        engine.submit(Request([i], replace(GREEDY, max_new_tokens=2 + i), []), one)
    run(engine)
    assert [h.ids for h in heard] == [[(i + k) % VOCAB for k in range(1, 3 + i)] for i in range(5)]
    assert max(int(a.split()[0]) for a in backend.asked if a.endswith("rows")) == 2


def test_long_prompts_are_read_a_few_at_a_time() -> None:
    backend = Counting(8, 2 * PROMPT_BUDGET)
    engine = Engine(backend, 8)
    size = PROMPT_BUDGET // 2
    for _ in range(5):
        engine.submit(Request([1] * size, GREEDY, []), Heard())
    engine.step()
    assert [a for a in backend.asked if "prompt" in a] == [f"prompt of {size} in {i}" for i in range(2)]
    engine.submit(Request([1] * (2 * PROMPT_BUDGET - 1), GREEDY, []), last := Heard())
    run(engine)
    assert last.finish is not None  # larger than the budget, it came alone


@pytest.mark.parametrize("when", ["waiting", "writing"])
def test_a_cancelled_sequence_ends_and_frees_its_row(when: str) -> None:
    engine, first, second = Engine(Counting(1), 1), Heard(), Heard()
    job = engine.submit(Request([0], replace(GREEDY, max_new_tokens=50), []), first)
    other = engine.submit(Request([30], GREEDY, []), second)
    engine.step()
    (job if when == "writing" else other).cancel()
    engine.step()
    assert (first if when == "writing" else second).finish == Finish("cancelled")
    written = len(first.ids)
    run(engine)
    if when == "writing":
        assert len(first.ids) == written == 2
        assert second.ids == [31, 32, 33, 34, 35]
    else:
        assert second.ids == []
        assert len(first.ids) == 50
    assert not engine.active
    assert not engine.waiting


def test_a_listener_may_end_its_own_sequence() -> None:
    engine = Engine(Counting(2), 2)
    heard: list[object] = []

    def stop_at_three(event: Token | Finish) -> None:
        heard.append(event)
        if len(heard) == 3:
            job.cancel()

    job = engine.submit(Request([0], replace(GREEDY, max_new_tokens=50), []), stop_at_three)
    run(engine)
    assert heard[3:] == [Finish("cancelled")]


def test_closing_a_stream_frees_its_row() -> None:
    engine = Engine(Counting(1), 1)
    stream = engine.stream(Request([0], replace(GREEDY, max_new_tokens=50), []))
    assert next(stream) == Token(1)
    stream.close()
    assert not engine.active
    assert [e.id for e in engine.stream(Request([5], GREEDY, [])) if isinstance(e, Token)] == [6, 7, 8, 9, 10]


@pytest.mark.parametrize("size", [0, BLOCK, BLOCK + 5])
def test_a_prompt_that_does_not_fit_is_not_taken(size: int) -> None:
    with pytest.raises(ValueError, match=str(size)):
        Engine(Counting(1), 1).submit(Request([1] * size, GREEDY, []), Heard())


def test_any_coming_and_going_leaves_every_text_as_it_should_be() -> None:
    draw = random.Random(5)
    backend = Counting(5)
    engine = Engine(backend, 5)
    everyone: list[tuple[Heard, int, int, bool]] = []
    jobs = []
    for _ in range(300):
        for _ in range(draw.randrange(3)):
            start, count = draw.randrange(VOCAB), draw.randrange(1, 20)
            heard = Heard()
            ends = [END] if draw.random() < 0.5 else []
            jobs.append(engine.submit(Request([start], replace(GREEDY, max_new_tokens=count), ends), heard))
            everyone.append((heard, start, count, bool(ends)))
        engine.step()
        if jobs and draw.random() < 0.1:
            draw.choice(jobs).cancel()
    run(engine)
    assert len(everyone) > 200
    for heard, start, count, ends in everyone:
        assert heard.finish is not None
        whole = [(start + k) % VOCAB for k in range(1, count + 1)]
        if ends and END in whole:
            whole = whole[: whole.index(END)]
        if heard.finish.reason == "cancelled":
            assert heard.ids == whole[: len(heard.ids)]
        else:
            assert heard.ids == whole


def test_log_probabilities_come_with_the_tokens_that_asked_for_them() -> None:
    engine = Engine(Counting(2), 2)
    told: list[Token | Finish] = []
    engine.submit(Request([0], replace(GREEDY, max_new_tokens=2), [], top=2), told.append)
    silent: list[Token | Finish] = []
    engine.submit(Request([0], replace(GREEDY, max_new_tokens=2), []), silent.append)
    run(engine)
    first = told[0]
    assert isinstance(first, Token)
    share = float(np.exp(9) / (np.exp(9) + VOCAB - 1))
    assert first.logprob == pytest.approx(np.log(share), abs=1e-6)
    assert first.top[0] == (1, first.logprob)
    assert len(first.top) == 2
    assert silent[0] == Token(1)


def test_a_biased_request_does_not_move_its_neighbours() -> None:
    engine, one, other = Engine(Counting(2), 2), Heard(), Heard()
    engine.submit(Request([0], replace(GREEDY, max_new_tokens=1), [], bias={40: 100.0}), one)
    engine.submit(Request([0], replace(GREEDY, max_new_tokens=1), []), other)
    run(engine)
    assert (one.ids, other.ids) == ([40], [1])
