"""The project's tokenizers as others read them: with BOS before every text, as the models were trained.

A tokenizer.json of the project's own has no post-processor, since BOS is placed by id. Here one places it, so that
whoever calls a tokenizer with its defaults gives the model the beginning that it knows. A chat template begins
with BOS itself, and both Hugging Face and llama.cpp then add none.
"""

from __future__ import annotations

import json
from typing import Any

from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError
from microgpt.tokenizer.base import BOS, END_TURN, EOS, Tokenizer
from microgpt.tokenizer.cl100k import Cl100kTokenizer
from microgpt.tokenizer.template import CHAT_TEMPLATE


def refuse_cl100k(tokenizer: Tokenizer, format: str) -> None:
    """Raise for the tokenizer that stands for unknown text, which nothing else can read.

    Raises:
        ModelError: naming it.
    """
    if isinstance(tokenizer, Cl100kTokenizer):
        raise ModelError(
            f"format={format} cannot hold tokenizer.kind=cl100k: what it was cut from has no list of merges",
            "use format=safetensors, or train with tokenizer=bpe",
        )


def end_tokens(tokenizer: Tokenizer) -> list[int]:
    """Ids that end a text: the end of a turn first, where there are turns; a document ends where one would begin."""
    return [tokenizer.control[END_TURN], *tokenizer.ends] if tokenizer.is_chat else tokenizer.ends


def hugging_face_tokenizer(tokenizer: Tokenizer, format: str) -> str:
    """The content of a tokenizer.json that begins every text with BOS.

    Raises:
        ModelError: the tokenizer cannot be written so.
    """
    refuse_cl100k(tokenizer, format)
    content: dict[str, Any] = json.loads(tokenizer.to_json())
    begin: dict[str, Any] = {"SpecialToken": {"id": BOS, "type_id": 0}}
    first: dict[str, Any] = {"Sequence": {"id": "A", "type_id": 0}}
    second: dict[str, Any] = {"Sequence": {"id": "B", "type_id": 1}}
    content["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, first],
        "pair": [begin, first, begin, second],
        "special_tokens": {BOS: {"id": BOS, "ids": [tokenizer.bos], "tokens": [BOS]}},
    }
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"


def hugging_face_config(tokenizer: Tokenizer, block_size: int) -> str:
    """tokenizer_config.json; the class is the one name that transformers 4 and 5 both know."""
    end = END_TURN if tokenizer.is_chat else EOS if EOS in tokenizer.control else BOS
    content: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": end,
        "pad_token": end,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": block_size,
    }
    return json.dumps(content, indent=2) + "\n"


def generation_config(tokenizer: Tokenizer, block_size: int, sampling: SamplingConfig) -> str:
    """generation_config.json: where a text ends and how it is drawn."""
    ends = end_tokens(tokenizer)
    content: dict[str, Any] = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": ends,
        "pad_token_id": ends[0],
        "max_length": block_size,
    }
    if sampling.temperature > 0:
        content |= {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p}
        content |= {"top_k": sampling.top_k, "repetition_penalty": sampling.repetition_penalty}
    return json.dumps(content, indent=2) + "\n"


def chat_files(tokenizer: Tokenizer) -> dict[str, str]:
    """chat_template.jinja where the tokenizer knows conversations."""
    return {"chat_template.jinja": CHAT_TEMPLATE} if tokenizer.is_chat else {}
