"""From texts and messages to the ids that a model goes on from, or to the reason why not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from microgpt.config.schema import SamplingConfig
from microgpt.errors import DataError, UsageError
from microgpt.inference.chat import Turn, fitted
from microgpt.inference.generate import prompt_ids
from microgpt.inference.load import Model
from microgpt.serving.refusal import Refusal

R = TypeVar("R")
LONG = 8192  # characters from which on a text is not tokenized on the event loop, which it would hold up
ROOM = 4  # a reply of no given length gets at least a fourth of the context


def sampling(model: Model, **fields: Any) -> SamplingConfig:
    """Settings that change nothing but what is given; None is not given. All values have been checked."""
    neutral: dict[str, Any] = {
        "temperature": 1.0,
        "top_k": 0,
        "top_p": 1.0,
        "max_new_tokens": model.config.block_size,
    }
    return SamplingConfig(**(neutral | {name: value for name, value in fields.items() if value is not None}))


async def conversation(
    model: Model, turns: Sequence[Turn], max_tokens: int | None, param: str = "messages"
) -> tuple[list[int], int]:
    """The ids of a conversation, fitted into the context, and the number of tokens that were dropped.

    Raises:
        Refusal: the model is not for chat, or the last message does not fit.
    """
    tokenizer, block_size = model.tokenizer, model.config.block_size
    if not tokenizer.is_chat:
        message = "this model was not trained for chat; ask it for a completion instead"
        raise Refusal(400, message, param="model", code="not_a_chat_model")
    for i, (role, _) in enumerate(turns):
        if f"<{role}>" not in tokenizer.control:
            message = f"{param}[{i}].role: this model was trained without {role} messages"
            raise Refusal(400, message, param=f"{param}[{i}].role", code="invalid_value")
    room = max_tokens or max(1, block_size // ROOM)
    size = sum(len(text) for _, text in turns)
    ids, dropped, _ = await encoded(size, param, lambda: fitted(tokenizer, turns, block_size, room))
    return ids, dropped


async def text(model: Model, prompt: str | Sequence[int], param: str = "prompt") -> list[int]:
    """The ids of a text to go on from, or of ids that a client has made itself.

    Raises:
        Refusal: it does not fit into the context, or an id is no token of text.
    """
    tokenizer, block_size = model.tokenizer, model.config.block_size
    if isinstance(prompt, str):
        return await encoded(len(prompt), param, lambda: prompt_ids(tokenizer, prompt, block_size))
    control = set(tokenizer.control.values())
    if len(prompt) + 1 >= block_size:
        raise too_long(UsageError(f"the prompt has {len(prompt) + 1:,} tokens, the context holds {block_size:,}", ""))
    if not all(0 <= i < tokenizer.vocab_size and i not in control for i in prompt):
        message = f"{param} holds an id that is no token of text; ids are below {tokenizer.vocab_size:,}"
        raise Refusal(400, message, param=param, code="invalid_value")
    return [tokenizer.bos, *prompt]


async def encoded(size: int, param: str, work: Callable[[], R]) -> R:
    """The outcome of tokenizing that many characters, away from the event loop where they are many."""
    try:
        return work() if size < LONG else await asyncio.to_thread(work)
    except UsageError as error:
        raise too_long(error, param) from None
    except DataError:
        message = f"{param}: this model's tokenizer knows single characters, and not all of these"
        raise Refusal(400, message, param=param, code="invalid_value") from None


def too_long(error: UsageError, param: str = "prompt") -> Refusal:
    """The refusal of a prompt that does not fit."""
    return Refusal(400, f"{error.what}; send less", param=param, code="context_length_exceeded")
