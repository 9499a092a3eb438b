"""From the bytes of a request to a checked body. Nothing that a client sent is repeated to it but a field's name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import ValidationError
from starlette.requests import Request

from microgpt.serving import schemas
from microgpt.serving.refusal import Refusal

B = TypeVar("B", bound=schemas.Body)
FIELDS = 512  # of one object; each one too many would cost an error of its own
PLAIN = re.compile(r"[A-Za-z0-9_.-]{1,64}")
KINDS = [kind for kind in vars(schemas).values() if isinstance(kind, type) and issubclass(kind, schemas.Body)]
NAMES = {name for kind in KINDS for name in kind.model_fields}
#: fields whose errors pydantic reports once for each type that they may have
UNIONS = {
    "stop": f"must be {schemas.STOP}",
    "prompt": f"must be {schemas.PROMPT}",
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
    messages = value.get("messages")
    some = [value, *value.values(), *(messages if isinstance(messages, list) else [])]
    if any(isinstance(item, dict) and len(item) > FIELDS for item in some):
        raise Refusal(400, f"an object of the body has more than {FIELDS} fields", code="invalid_value")
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise wrong(first["type"], first["loc"], first["msg"]) from None


def wrong(kind: str, place: Sequence[str | int], said: str) -> Refusal:
    """The refusal for an error of pydantic's."""
    words: list[str] = []
    union = ""
    unknown = kind == "extra_forbidden"
    for depth, step in enumerate(place, 1):
        if isinstance(step, int) and words:
            words[-1] += f"[{step}]"
        elif step in NAMES:
            words.append(str(step))
            if step in UNIONS and depth < len(place):
                union = UNIONS[str(step)]
                break
        elif unknown and depth == len(place):
            words.append(str(step) if PLAIN.fullmatch(str(step)) else "(a field)")
    param = ".".join(words)
    if kind == "missing":
        return Refusal(400, f"{param} is missing", param=param, code="missing_field")
    if kind in ("extra_forbidden", "none_required"):
        return Refusal(400, f"{param} is unknown here, or not supported", param=param, code="unsupported_field")
    text = union or re.sub(r"^\w+ should ", "must ", said).partition(" after validation")[0]
    return Refusal(400, f"{param} {text}", param=param, code="invalid_value")
