"""From the bytes of a request to a checked body. Nothing that a client sent is repeated to it but a field's name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from microgpt.serving.refusal import Refusal
from microgpt.serving.schemas import PROMPT, STOP, Body

B = TypeVar("B", bound=Body)
NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: fields whose errors pydantic reports once for each type that they may have
UNIONS = {
    "stop": f"must be {STOP}",
    "prompt": f"must be {PROMPT}",
    "content": "must be a text, or a list of parts of the type text",
}


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is too large")
    return value


def parse(content: bytes) -> dict[str, Any]:
    """A JSON object, read strictly: UTF-8, no NaN, no infinity, no half of a surrogate pair, no deep nesting.

    Raises:
        Refusal: it is none.
    """
    try:
        value = json.loads(content.decode("utf-8"), parse_constant=_no_number, parse_float=_number)
        if b"\\ud" in content or b"\\uD" in content:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (ValueError, RecursionError):  # what cannot be decoded or encoded is a ValueError too
        message = (
            "the body is no valid JSON: it must be UTF-8, without NaN, infinity, half surrogates or deep nesting"
        )
        raise Refusal(400, message, code="invalid_json") from None
    if not isinstance(value, dict):
        raise Refusal(400, "the body must be a JSON object", code="invalid_json")
    return value


async def read(request: Request, kind: type[B]) -> B:
    """The request's body as one of the schemas.

    Raises:
        Refusal: it does not fit, naming the first field that is wrong.
    """
    value = parse(await request.body())
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise wrong(first["type"], first["loc"], first["msg"]) from None


def wrong(kind: str, place: Sequence[str | int], said: str) -> Refusal:
    """The refusal for an error of pydantic's."""
    words: list[str] = []
    union = ""
    for step in place:
        if isinstance(step, int) and words:
            words[-1] += f"[{step}]"
        elif isinstance(step, str):
            words.append(step if NAME.fullmatch(step) else "(a field)")
            if step in UNIONS:
                union = UNIONS[step]
                break
    param = ".".join(words)
    if kind == "missing":
        return Refusal(400, f"{param} is missing", param=param, code="missing_field")
    if kind in ("extra_forbidden", "none_required"):
        return Refusal(400, f"{param} is unknown here, or not supported", param=param, code="unsupported_field")
    text = union or re.sub(r"^\w+ should ", "must ", said)
    return Refusal(400, f"{param} {text}", param=param, code="invalid_value")
