"""Another program's tokenizer.json as one of this project's: the same ids for every text, control tokens renamed.

What begins a text becomes `<bos>` and what ends it `<eos>`; the other control tokens keep their names. A text that
spells a control token stays text, whatever the source did with it, and BOS is placed by id, so what the source puts
around texts is left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.checkpoints.folder import TOKENIZER, TOKENIZER_CONFIG
from microgpt.errors import ModelError
from microgpt.export.foreign_shapes import refusal
from microgpt.export.gguf import byte_alphabet
from microgpt.tokenizer.base import BOS, END_TURN, EOS, Tokenizer
from microgpt.tokenizer.load import MAX_BYTES, parse_tokenizer
from microgpt.tokenizer.splits import split_name

MEND = "microgpt reads byte-level BPE that changes no text"


def adapted(source: Path, config: Mapping[str, Any], vocab_size: int) -> tuple[Tokenizer, list[str]]:
    """The tokenizer of a folder, and what a user should know of it.

    Args:
        source: the folder, with tokenizer.json and perhaps tokenizer_config.json.
        config: the model's config.json or meta.json, which may say the ids that begin and end a text.
        vocab_size: rows of the model's embedding; ids that the tokenizer does not know become control tokens.

    Raises:
        ModelError: the tokenizer is missing, or does something that this project does not do.
    """
    path = source / TOKENIZER
    if not path.is_file():
        raise ModelError(f"{source} has no {TOKENIZER}", "save the fast tokenizer: tokenizer.save_pretrained(folder)")
    if path.stat().st_size > MAX_BYTES:
        raise ModelError(f"{path} is larger than {MAX_BYTES:,} bytes", "this is no tokenizer.json")
    try:
        content: Any = files.read_json(path)
        refuse_what_changes_text(content)
        names = added_tokens(content)
        notes = rename(content, names, begin_and_end(names, said_tokens(source), config))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is damaged ({type(error).__name__})", "take it from its source again") from None
    tokenizer = parse_tokenizer(json.dumps(content), str(path))
    if tokenizer.vocab_size > vocab_size:
        raise ModelError(f"{path} has {tokenizer.vocab_size} tokens, the model {vocab_size}", "take both together")
    spare = vocab_size - tokenizer.vocab_size
    if spare:
        tokenizer = tokenizer.grown([f"<unused-{i}>" for i in range(spare)])
        notes.append(f"{spare:,} ids that the tokenizer does not know are control tokens")
    if (source / "chat_template.jinja").exists() and not tokenizer.is_chat:
        notes.append("its chat template is not taken along: to this project it is a model of plain text")
    return tokenizer, notes


def refuse_what_changes_text(content: Any) -> None:
    """Raise for all but byte-level BPE and characters, by the entry that is something else.

    Raises:
        ModelError: naming it.
        KeyError, TypeError, AttributeError: the file is damaged.
    """
    model = content["model"]
    if content.get("normalizer") is not None:
        raise refusal(TOKENIZER, "normalizer", content["normalizer"]["type"], MEND)
    if model["type"] == "WordLevel":
        return  # characters, if it can be read at all
    if model["type"] != "BPE":
        raise refusal(TOKENIZER, "model.type", model["type"], MEND)
    if model.get("byte_fallback"):
        raise refusal(TOKENIZER, "model.byte_fallback", True, MEND)
    before = content.get("pre_tokenizer")
    if before is None or not split_name(before):
        raise refusal(TOKENIZER, "pre_tokenizer", before and before["type"], "it divides text in an unknown way")
    alphabet = set(byte_alphabet())
    added = {token["content"] for token in content["added_tokens"]}
    for token in model["vocab"]:
        if token not in added and not set(token) <= alphabet:
            raise refusal(TOKENIZER, "model.vocab", repr(token), "a token is not spelled in bytes")
    if alphabet <= set(model["vocab"]):
        model["unk_token"] = None  # with all bytes there, nothing is unknown


def added_tokens(content: Any) -> dict[str, int]:
    """Ids of the control tokens; what else a file adds to them is taken away where it plays no part.

    Raises:
        ModelError: one is a part of ordinary text.
    """
    for token in content["added_tokens"]:
        if not token["special"]:
            raise refusal(TOKENIZER, "added_tokens", repr(token["content"]), "it would be taken from ordinary text")
        token.update(single_word=False, lstrip=False, rstrip=False, normalized=False)  # they are never read from text
    content["truncation"] = content["padding"] = content["post_processor"] = None
    return {str(token["content"]): int(token["id"]) for token in content["added_tokens"]}


def said_tokens(source: Path) -> dict[str, str]:
    """`bos_token` and `eos_token` of tokenizer_config.json."""
    path = source / TOKENIZER_CONFIG
    content: Any = files.read_json(path) if path.is_file() and path.stat().st_size < MAX_BYTES else {}
    found: dict[str, str] = {}
    for key in ("bos_token", "eos_token"):
        token = content.get(key)
        found[key] = str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
    return found


def begin_and_end(names: dict[str, int], said: dict[str, str], config: Mapping[str, Any]) -> tuple[str, str]:
    """The names of the tokens that begin and end a text.

    Raises:
        ModelError: there is no such token.
    """
    by_id = {i: name for name, i in names.items()}

    def of(part: str) -> str:
        if said[f"{part}_token"] in names:
            return said[f"{part}_token"]
        ids = config.get(f"{part}_token_id")
        first = ids[0] if isinstance(ids, list) and ids else ids
        return by_id.get(first, "") if isinstance(first, int) else ""

    end = of("eos")
    begin = BOS if BOS in names else of("bos") or end or (next(iter(names)) if len(names) == 1 else "")
    if not begin:
        raise refusal("config.json", "bos_token_id", config.get("bos_token_id"), "no control token begins a text")
    return begin, end or begin


def rename(content: Any, names: dict[str, int], ends: tuple[str, str]) -> list[str]:
    """Give the tokens that begin and end a text the names that they have here.

    Returns:
        What was renamed, in words.
    """
    begin, end = ends
    wanted = {begin: BOS}
    if end not in (begin, END_TURN):
        wanted[end] = EOS
    wanted = {old: new for old, new in wanted.items() if old != new}
    taken = [new for new in wanted.values() if new in names or new in content["model"]["vocab"]]
    if taken:
        raise refusal(TOKENIZER, "added_tokens", repr(taken[0]), "another token has that name")
    for token in content["added_tokens"]:
        token["content"] = wanted.get(token["content"], token["content"])
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {wanted.get(name, name): i for name, i in vocabulary.items()}
    return [f"{old} is {new}" for old, new in wanted.items()]
