"""Conversation and record schemas of JSONL rows: one reader each, recognised by a file's first row.

A reader turns a row into turns (role, text) or plain text, or says what is wrong with it.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from typing import Any

from microgpt.data.text import is_unicode

Turn = tuple[str, str]
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
RECORD_FIELDS = {
    "knowledge": ("text",),
    "memory": ("text",),
    "qa": ("question", "answer"),
    "chat": ("input", "output"),
    "trajectory": ("task", "result"),
    "preference": ("prompt", "chosen", "rejected"),
}
CONVERSATIONAL = ("qa", "chat")


class RowFault(Exception):
    """What is wrong with a row."""


class Dropped(Exception):
    """A conversation with no reply in it: nothing to learn from, but not a fault."""


class Parsed(typing.NamedTuple):
    """A row as training material.

    Attributes:
        kind: for the report.
        text: plain training text, as people read it.
        turns: the conversation, or nothing where the row is text only.
        identity: the row's id where its schema has one.
        trimmed: trailing turns without a reply that were cut off.
    """

    kind: str
    text: str
    turns: tuple[Turn, ...]
    identity: str = ""
    trimmed: int = 0


def _text(row: dict[str, Any], name: str, blank: bool = False) -> str:
    value = row.get(name)
    if value is None and blank:
        return ""
    if value is None:
        raise RowFault(f"no field {name!r}" if name not in row else f"{name!r} is null")
    if not isinstance(value, str):
        raise RowFault(f"{name!r} is not a text")
    if not value.strip() and not blank:
        raise RowFault(f"{name!r} is blank")
    if not is_unicode(value):
        raise RowFault("lone surrogate")
    return value


def spoken(turns: Sequence[Turn]) -> str:
    """A conversation as plain text."""
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def conversation(kind: str, turns: list[Turn], identity: str = "") -> Parsed:
    """A conversation cleaned up: turns after the last reply go, and without any reply there is none.

    Raises:
        Dropped: no assistant turn.
    """
    kept = len(turns)
    while kept and turns[kept - 1][0] != "assistant":
        kept -= 1
    if not kept:
        raise Dropped
    clean = tuple(turns[:kept])
    return Parsed(kind, spoken(clean), clean, identity, len(turns) - kept)


def _turns(items: Any, role_key: str, text_key: str, names: dict[str, str]) -> list[Turn]:
    if not isinstance(items, list) or not items:
        raise RowFault("no turns")
    turns: list[Turn] = []
    for number, item in enumerate(typing.cast("list[Any]", items), 1):
        if not isinstance(item, dict):
            raise RowFault(f"turn {number} is not an object")
        entry = typing.cast("dict[str, Any]", item)
        role = entry.get(role_key)
        if not isinstance(role, str) or role not in names:
            raise RowFault(f"turn {number} has the role {role!r}"[:80])
        if names[role] == "system" and number > 1:
            raise RowFault(f"turn {number} is a system turn; only the first can be")
        turns.append((names[role], _text(entry, text_key)))
    return turns


def read_messages(row: Any, number: int) -> Parsed:
    """`[{role, content}, ...]` or `{"messages": [...]}`."""
    items = row.get("messages") if isinstance(row, dict) else row
    return conversation("messages", _turns(items, "role", "content", {r: r for r in ROLES}))


def read_sharegpt(row: Any, number: int) -> Parsed:
    """`{"conversations": [{from, value}, ...]}`."""
    return conversation("sharegpt", _turns(row.get("conversations"), "from", "value", SHAREGPT_ROLES))


def read_records(row: Any, number: int) -> Parsed:
    """Rows with `id` and `record_type`: knowledge, memory, qa, chat, trajectory, preference."""
    kind = row.get("record_type")
    if not isinstance(kind, str) or kind not in RECORD_FIELDS:
        raise RowFault(f"record_type {kind!r} is none of {', '.join(RECORD_FIELDS)}"[:120])
    identity = row.get("id")
    if not isinstance(identity, (str, int)) or isinstance(identity, bool) or str(identity).strip() == "":
        raise RowFault("no field 'id'")
    values = [_text(row, name) for name in RECORD_FIELDS[kind]]
    if kind in ("knowledge", "memory"):
        return Parsed(kind, values[0], (), str(identity))
    if kind == "qa":
        turns = (("user", values[0]), ("assistant", values[1]))
        return Parsed(kind, f"Question: {values[0]}\nAnswer: {values[1]}", turns, str(identity))
    if kind == "chat":
        return conversation(kind, [("user", values[0]), ("assistant", values[1])], str(identity))
    if kind == "trajectory":
        actions: Any = row.get("actions") or []
        if not isinstance(actions, list) or not all(isinstance(a, str) for a in typing.cast("list[Any]", actions)):
            raise RowFault("'actions' is not a list of texts")
        middle = f"\nActions: {' | '.join(actions)}" if actions else ""
        return Parsed(kind, f"Task: {values[0]}{middle}\nResult: {values[1]}", (), str(identity))
    return Parsed(kind, f"Prompt: {values[0]}\nPreferred: {values[1]}", (), str(identity))


def read_dolly(row: Any, number: int) -> Parsed:
    """Dolly rows: instruction, context, response, category."""
    context = _text(row, "context", blank=True)
    asked = _text(row, "instruction") + (f"\nContext: {context}" if context.strip() else "")
    return conversation("chat", [("user", asked), ("assistant", _text(row, "response"))], f"dolly-auto-{number}")


def read_alpaca(row: Any, number: int) -> Parsed:
    """Alpaca rows: instruction, input, output."""
    given = _text(row, "input", blank=True)
    asked = _text(row, "instruction") + (f"\n{given}" if given.strip() else "")
    return conversation("alpaca", [("user", asked), ("assistant", _text(row, "output"))])


SCHEMAS: dict[str, Callable[[Any, int], Parsed]] = {
    "messages": read_messages,
    "sharegpt": read_sharegpt,
    "records": read_records,
    "dolly": read_dolly,
    "alpaca": read_alpaca,
}


def recognised(row: Any, text_field: str) -> str:
    """The schema that a row looks like: a name of `SCHEMAS`, `text`, or nothing."""
    if isinstance(row, list):
        return "messages"
    if not isinstance(row, dict):
        return ""
    if "messages" in row:
        return "messages"
    if "conversations" in row:
        return "sharegpt"
    if "record_type" in row:
        return "records"
    if "instruction" in row and "response" in row:
        return "dolly"
    if "instruction" in row and "output" in row:
        return "alpaca"
    return "text" if text_field in row else ""
