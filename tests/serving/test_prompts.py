"""From requests to ids: whatever is not refused fits into the context, with room for one token at least."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import microgpt
from microgpt.serving import prompts
from microgpt.serving.refusal import Refusal
from microgpt.tokenizer.base import ASSISTANT, BOS, END_TURN, USER, Tokenizer
from microgpt.tokenizer.bpe import train_bpe

Save = Callable[..., Path]


def test_conversations_fit_or_are_refused_in_contexts_of_any_size(
    tmp_path: Path, save: Save, tokenizer: Tokenizer
) -> None:
    def size(work: Coroutine[Any, Any, Any]) -> int:
        """How many ids there are; 0 where it is refused as too long."""
        try:
            found = asyncio.run(work)
        except Refusal as refusal:
            if refusal.code == "context_length_exceeded":
                return 0
            raise
        return len(found[0] if isinstance(found, tuple) else found)

    answered = 0
    for block_size in range(2, 12):
        model = microgpt.load(save(tmp_path / f"{block_size}", tokenizer, block_size), "cpu", 1, "never")
        talks = [[("user", "a")], [("user", "ab"), ("assistant", "cd"), ("user", "")], [("system", "abc")]]
        sizes = [size(prompts.conversation(model, talk, most)) for talk in talks for most in (None, 1, 3, 100)]
        sizes += [size(prompts.text(model, text)) for text in ("", "a", "abc", [50], [50] * 9, [50] * 10)]
        assert max(sizes) < block_size
        answered += sum(map(bool, sizes))
    assert answered > 60


def test_a_model_without_system_turns_says_so(tmp_path: Path, save: Save) -> None:
    model = microgpt.load(
        save(tmp_path / "m", train_bpe([], 260, (BOS, USER, ASSISTANT, END_TURN)), 64), "cpu", 1, "never"
    )
    assert asyncio.run(prompts.conversation(model, [("user", "hi")], None))
    with pytest.raises(Refusal) as caught:
        asyncio.run(prompts.conversation(model, [("system", "be"), ("user", "hi")], None))
    assert (caught.value.status, caught.value.param) == (400, "messages[0].role")


def test_what_is_left_of_a_long_conversation_and_what_is_dropped_make_the_whole(talker: Path) -> None:
    model = microgpt.load(talker, "cpu", 1, "never")
    turns = [(("user", "assistant")[i % 2], "hello there") for i in range(4095)]
    ids, dropped = asyncio.run(prompts.conversation(model, turns, 20))
    assert len(ids) <= 108
    assert dropped + len(ids) - 2 == 4095 * (2 + len(model.tokenizer.encode("hello there")))
