"""Talking: a conversation fitted into the context, and a reply as it is written."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field

from microgpt import files
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError, UsageError
from microgpt.inference.engine import Engine, Finish, Request, Token
from microgpt.inference.generate import prompt_ids
from microgpt.inference.text import Writer
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
        drawn: the tokens, with their probabilities where they were asked for.
    """

    text: str = ""
    tokens: int = 0
    finish: str = ""
    tokens_dropped: int = 0
    turns_dropped: int = 0
    ids: list[int] = field(default_factory=list)
    drawn: list[Token] = field(default_factory=list)


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
    rest = deque(encoded[len(system) :])
    dropped = count = 0
    room = min(room, block_size // 2)  # a long reply must not push everything out
    size = len(generation_prompt(tokenizer, encoded))
    while size + room > block_size:
        if len(rest) <= 1:
            if size < block_size:
                break  # a shorter reply than asked for is better than none
            raise UsageError(
                f"the message has {size:,} tokens, the context holds {block_size:,}", "shorten the message"
            )
        while True:
            gone = len(rest.popleft().ids)
            size, dropped, count = size - gone, dropped + gone, count + 1
            if len(rest) <= 1 or rest[0].role == "user":
                break
    return generation_prompt(tokenizer, [*system, *rest]), dropped, count


def reply_ends(tokenizer: Tokenizer) -> list[int]:
    """The ids that end a reply: the model may end its turn, and any other control token ends it as well."""
    return sorted(tokenizer.control.values())


def finish_of(finish: Finish, tokenizer: Tokenizer) -> str:
    """How a reply ended, as `Reply.finish` says it."""
    if finish.token is None:
        return finish.reason
    return "end" if finish.token == tokenizer.control[END_TURN] else "control"


def stream_reply(
    engine: Engine,
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    sampling: SamplingConfig,
    reply: Reply | None = None,
    top: int | None = None,
) -> Iterator[str]:
    """Pieces of the assistant's reply as they come; whole characters only.

    Args:
        engine: of the model.
        tokenizer: its tokenizer.
        turns: (role, text), the last one the user's.
        sampling: how to draw; the reply is drawn with its seed.
        reply: filled in on the way.
        top: how many of the likeliest tokens to tell with each token; None tells no probabilities.

    Raises:
        ModelError: the model is not for chat.
        UsageError: the last turn does not fit into the context.
    """
    require_chat(tokenizer)
    state = reply if reply is not None else Reply()
    room = sampling.max_new_tokens
    ids, state.tokens_dropped, state.turns_dropped = fitted(tokenizer, turns, engine.block_size, room)
    request = Request(ids, sampling, reply_ends(tokenizer), sampling.seed, top=top)
    yield from _written(engine, tokenizer, request, state)


def stream_text(
    engine: Engine,
    tokenizer: Tokenizer,
    prompt: str,
    sampling: SamplingConfig,
    reply: Reply | None = None,
    top: int | None = None,
) -> Iterator[str]:
    """As `stream_reply`, for any model: how a text goes on.

    Raises:
        UsageError: the prompt does not fit into the context.
    """
    state = reply if reply is not None else Reply()
    ids = prompt_ids(tokenizer, prompt, engine.block_size)
    request = Request(ids, sampling, tokenizer.ends, sampling.seed, top=top)
    yield from _written(engine, tokenizer, request, state)


def _written(engine: Engine, tokenizer: Tokenizer, request: Request, state: Reply) -> Iterator[str]:
    """The pieces of a request's text, `state` filled in on the way."""
    writer = Writer(tokenizer, request.sampling.stop)
    with closing(engine.stream(request)) as events:
        for event in events:
            if isinstance(event, Finish):
                ended = tokenizer.is_chat and event.token is not None
                piece, state.finish = writer.close(), finish_of(event, tokenizer) if ended else event.reason
            else:
                state.ids.append(event.id)
                state.drawn.append(event)
                state.tokens += 1
                piece = writer.add(event.id)
            if writer.stopped:
                state.finish = "stop"
            state.text = writer.text
            if piece:
                yield piece
            if state.finish:
                return


def reply_to(engine: Engine, tokenizer: Tokenizer, turns: Sequence[Turn], sampling: SamplingConfig) -> Reply:
    """The assistant's whole reply."""
    reply = Reply()
    for _ in stream_reply(engine, tokenizer, turns, sampling, reply):
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


def chat_score(engine: Engine, tokenizer: Tokenizer, prompts: Sequence[str], sampling: SamplingConfig) -> ChatScore:
    """Reply to each prompt and count."""
    replies = [reply_to(engine, tokenizer, [("user", p)], sampling) for p in prompts]
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
