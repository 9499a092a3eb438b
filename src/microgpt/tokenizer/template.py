"""How a conversation becomes tokens: BOS, then for each turn its role's token, its text and `<end_turn>`.

Control tokens are placed by id; a text that spells one stays text.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from microgpt.errors import UsageError
from microgpt.tokenizer.base import ASSISTANT, BOS, END_TURN, Tokenizer

#: the same, for Hugging Face and llama.cpp
CHAT_TEMPLATE = (
    "{{ '<bos>' }}{% for message in messages %}{{ '<' + message['role'] + '>' }}{{ message['content'] }}"
    "{{ '<end_turn>' }}{% endfor %}{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@dataclass(frozen=True)
class EncodedTurn:
    """One turn as tokens.

    Attributes:
        role: `system`, `user` or `assistant`.
        ids: role token, text, `<end_turn>`.
    """

    role: str
    ids: list[int]


def encode_turns(tokenizer: Tokenizer, turns: Sequence[tuple[str, str]]) -> list[EncodedTurn]:
    """Turns (role, text) as tokens.

    Raises:
        UsageError: the tokenizer has no token for a role (imported models may have none for `system`).
    """
    for role, _ in turns:
        if f"<{role}>" not in tokenizer.control:
            raise UsageError(f"this model knows no {role} turn", "leave it out")
    texts = tokenizer.encode_batch([text for _, text in turns])
    end = tokenizer.control[END_TURN]
    return [
        EncodedTurn(role, [tokenizer.control[f"<{role}>"], *ids.tolist(), end])
        for (role, _), ids in zip(turns, texts)
    ]


def generation_prompt(tokenizer: Tokenizer, turns: Sequence[EncodedTurn]) -> list[int]:
    """The ids after which the model writes the assistant's reply."""
    ids = [tokenizer.bos]
    for turn in turns:
        ids.extend(turn.ids)
    return [*ids, tokenizer.control[ASSISTANT]]


def tokenizer_config(tokenizer: Tokenizer, block_size: int) -> str:
    """tokenizer_config.json for Hugging Face, with the chat template where the tokenizer knows conversations."""
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": END_TURN if tokenizer.is_chat else BOS,
        "clean_up_tokenization_spaces": False,
        "model_max_length": block_size,
    }
    if tokenizer.is_chat:
        content["chat_template"] = CHAT_TEMPLATE
    return json.dumps(content, indent=2) + "\n"
