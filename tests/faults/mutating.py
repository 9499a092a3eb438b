"""Small wrongs done to bytes and to JSON values, drawn from a seed."""

from __future__ import annotations

import random
from typing import Any

NASTY: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", [], {},
    [[]], {"a": 1}, "<bos>", "F32", "BF16", [8, 8], ["a", "b"], "auto", 3, 4, 6, 7, 9,
]  # fmt: skip


def mutated_json(value: Any, draw: random.Random) -> Any:
    """The value with one node, anywhere, replaced, removed, renamed or doubled."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.85:
        copy = dict(value) if isinstance(value, dict) else list(value)
        key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
        what = draw.random()
        if what < 0.7:
            copy[key] = mutated_json(copy[key], draw)
        elif what < 0.85:
            del copy[key]
        elif isinstance(copy, dict):
            copy[draw.choice(["x", "", f"{key}2", "layer2.attn_wq"])] = copy.pop(key)
        else:
            copy.insert(key, copy[key])
        return copy
    return draw.choice(NASTY)


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """The content with a flipped bit, a cut, a doubled, an overwritten or an inserted stretch."""
    changed = bytearray(content)
    at = draw.randrange(len(changed))
    end = min(len(changed), at + draw.choice([1, 2, 8, 100]))
    what = draw.randrange(6)
    if what == 0:
        changed[at] ^= 1 << draw.randrange(8)
    elif what == 1:
        del changed[at:]
    elif what == 2:
        del changed[at:end]
    elif what == 3:
        changed[at:at] = changed[at:end]
    elif what == 4:
        changed[at:end] = draw.randbytes(end - at)
    else:
        changed[at:at] = draw.randbytes(end - at)
    return bytes(changed)
