"""Talking: a conversation fitted into the context, and a reply as it is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from microgpt import files
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError, UsageError
from microgpt.inference.generate import generated_tokens
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import END_TURN, Tokenizer
from microgpt.tokenizer.template import encode_turns, generation_prompt

Turn = tuple[str, str]


@dataclass
class Reply:
    """What is known of a reply while it is written, and after.

    Attributes:
        text: so far.
        tokens: drawn so far.
        finish: `end` (the model ended its turn), `control` (another control token came instead), `stop` (a stop text
            came), `length`, or nothing yet.
        tokens_dropped: tokens of the conversation that did not fit and were left out.
        turns_dropped: turns that these were.
    """

    text: str = ""
    tokens: int = 0
    finish: str = ""
    tokens_dropped: int = 0
    turns_dropped: int = 0
    ids: list[int] = field(default_factory=list)


def require_chat(tokenizer: Tokenizer) -> None:
    """Refuse a model that was not trained on conversations.

    Raises:
        ModelError: its tokenizer has no control tokens for turns.
    """
    if not tokenizer.is_chat:
        raise ModelError(
            "this model was not trained for chat", "train one with data=conversations, or use `microgpt generate`"
        )


def fitted(tokenizer: Tokenizer, turns: Sequence[Turn], block_size: int, room: int) -> tuple[list[int], int, int]:
    """The ids to go on from, cut at turn ends so that a reply has room.

    The system turn and the last turn stay; the oldest of the others go first, an exchange at a time.

    Args:
        tokenizer: with the control tokens of conversations.
        turns: (role, text), the last one the user's.
        block_size: tokens of the context.
        room: tokens to keep free for the reply.

    Returns:
        (ids, tokens dropped, turns dropped).

    Raises:
        UsageError: the last turn alone does not fit.
    """
    encoded = encode_turns(tokenizer, turns)
    system = encoded[:1] if encoded and encoded[0].role == "system" else []
    rest = encoded[len(system) :]
    dropped = count = 0
    room = min(room, block_size // 2)  # a long reply must not push everything out
    while True:
        ids = generation_prompt(tokenizer, [*system, *rest])
        if len(ids) + room <= block_size:
            return ids, dropped, count
        if len(rest) <= 1:
            if len(ids) < block_size:
                return ids, dropped, count  # a shorter reply than asked for is better than none
            raise UsageError(
                f"the message has {len(ids):,} tokens, the context holds {block_size:,}", "shorten the message"
            )
        take = 1
        while take < len(rest) - 1 and rest[take].role != "user":
            take += 1
        dropped += sum(len(t.ids) for t in rest[:take])
        count += take
        rest = rest[take:]


def stream_reply(
    model: GPT, tokenizer: Tokenizer, turns: Sequence[Turn], sampling: SamplingConfig, reply: Reply | None = None
) -> Iterator[str]:
    """Pieces of the assistant's reply as they come; whole characters only.

    Args:
        model: in evaluation mode.
        tokenizer: its tokenizer.
        turns: (role, text), the last one the user's.
        sampling: how to draw; the reply is drawn with its seed.
        reply: filled in on the way.

    Raises:
        ModelError: the model is not for chat.
        UsageError: the last turn does not fit into the context.
    """
    require_chat(tokenizer)
    state = reply if reply is not None else Reply()
    block = model.config.block_size
    ids, state.tokens_dropped, state.turns_dropped = fitted(tokenizer, turns, block, sampling.max_new_tokens)
    control = set(tokenizer.control.values())
    sent = 0
    ends = sorted(control)  # the model may end its turn; any other control token ends the reply as well
    last: list[int | None] = []

    def drawn() -> Iterator[int]:
        last.append((yield from generated_tokens(model, ids, sampling, ends, sampling.seed)))

    for token in drawn():
        state.ids.append(token)
        state.tokens += 1
        text = tokenizer.decode(state.ids)
        at = min((p for s in sampling.stop if s and (p := text.find(s)) >= 0), default=-1)
        if at >= 0:
            state.text, state.finish = text[:at], "stop"
            yield text[sent:at]
            return
        state.text = text
        held = len(text) - _unsafe_tail(text, sampling.stop)
        if held > sent:
            yield text[sent:held]
            sent = held
    if len(state.text) > sent:
        yield state.text[sent:]
    if last[0] is None:
        state.finish = "length"
    else:
        state.finish = "end" if last[0] == tokenizer.control[END_TURN] else "control"


def _unsafe_tail(text: str, stops: Sequence[str]) -> int:
    """Characters at the end that may still change: half a character, or the beginning of a stop text."""
    tail = len(text) - len(text.rstrip("\ufffd"))
    for stop in stops:
        for size in range(min(len(stop) - 1, len(text)), tail, -1):
            if text.endswith(stop[:size]):
                tail = size
                break
    return tail


def reply_to(model: GPT, tokenizer: Tokenizer, turns: Sequence[Turn], sampling: SamplingConfig) -> Reply:
    """The assistant's whole reply."""
    reply = Reply()
    for _ in stream_reply(model, tokenizer, turns, sampling, reply):
        pass
    return reply


def prompt_sheet() -> list[str]:
    """The fixed prompts that show how a chat model comes along."""
    text = (files.shipped("corpora") / "prompts.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip()]


@dataclass(frozen=True)
class ChatScore:
    """How a model behaves on prompts, beside its loss.

    Attributes:
        ended: share of replies that the model ended itself within the limit.
        empty: share of empty replies.
        repeated: share of replies that say the same four words three times or more.
        distinct_1, distinct_2: different words, and pairs of words, over all of them (Li et al. 2016,
            arXiv:1510.03055); low values mean that the model says the same to everything.
        mean_tokens: tokens of a reply.
        replies: prompt and reply.
    """

    ended: float
    empty: float
    repeated: float
    distinct_1: float
    distinct_2: float
    mean_tokens: float
    replies: list[tuple[str, str]]


def chat_score(model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], sampling: SamplingConfig) -> ChatScore:
    """Reply to each prompt and count."""
    replies = [reply_to(model, tokenizer, [("user", p)], sampling) for p in prompts]
    words = [r.text.lower().split() for r in replies]
    singles = [w for reply in words for w in reply]
    pairs = [pair for reply in words for pair in itertools.pairwise(reply)]
    count = max(1, len(replies))
    return ChatScore(
        sum(r.finish == "end" for r in replies) / count,
        sum(not r.text.strip() for r in replies) / count,
        sum(repeats(reply) for reply in words) / count,
        len(set(singles)) / max(1, len(singles)),
        len(set(pairs)) / max(1, len(pairs)),
        sum(r.tokens for r in replies) / count,
        [(p, r.text) for p, r in zip(prompts, replies)],
    )


def repeats(words: Sequence[str]) -> bool:
    """Whether the same four words in a row stand three times or more."""
    seen: dict[tuple[str, ...], int] = {}
    for i in range(len(words) - 3):
        four = tuple(words[i : i + 4])
        seen[four] = seen.get(four, 0) + 1
    return max(seen.values(), default=0) >= 3
