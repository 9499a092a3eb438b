"""Small questions about text and JSON that every reader asks."""

from __future__ import annotations

import json
from typing import Any


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8; a JSON escape can smuggle half a surrogate pair in."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def parse_json(text: str) -> tuple[Any, str]:
    """(value, problem): the JSON value of a line, or why it has none."""
    if not text.strip():
        return None, "blank row"
    try:
        return json.loads(text), ""
    except RecursionError:
        return None, "JSON nested too deeply"
    except ValueError as error:
        return None, f"not JSON ({str(error).split(':')[0]})"
