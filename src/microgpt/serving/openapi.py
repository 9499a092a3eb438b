"""What `/openapi.json` says: every path with its bodies, its answers and all statuses that it may have."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from microgpt.serving.schemas import Body, ChatBody, CompletionBody, GenerateBody, TalkBody

JSON = "application/json"
BODIES: tuple[type[Body], ...] = (GenerateBody, TalkBody, ChatBody, CompletionBody)
READING = {
    400: "the Host header is none of this server's names",
    401: "the API key is missing or wrong",
    408: "no answer in time",
    413: "the body is too large",
    500: "a fault of the server's",
    503: "loading, stopping or overloaded; Retry-After says when to ask again",
}
WRITING = READING | {
    400: "the request is wrong; the message says what",
    403: "a page of another origin",
    404: "no such model",
    429: "too many requests wait; Retry-After says when to ask again",
}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


def _list(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _maybe(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
FINISH = {"type": "string", "enum": ["stop", "length"]}
TOKEN = {"token": TEXT, "logprob": NUMBER, "bytes": _maybe(_list(WHOLE))}
FACTS = {"id": TEXT, "created": WHOLE, "model": TEXT, "usage": _ref("Usage")}
ANSWERS: dict[str, Any] = {
    "PlainError": _object({"error": TEXT}),
    "Error": _object(
        {"error": _object({"message": TEXT, "type": TEXT, "param": _maybe(TEXT), "code": _maybe(TEXT)})}
    ),
    "Health": _object({"status": {"const": "ok"}, "models": _list(TEXT), "uptime_s": NUMBER}),
    "Ready": _object({"status": {"type": "string", "enum": ["ready", "loading", "draining"]}}),
    "Samples": _object({"samples": _list(TEXT)}),
    "Reply": _object({"role": {"const": "assistant"}, "content": TEXT, "tokens_dropped": WHOLE}),
    "Usage": _object(
        {"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE, "microgpt_tokens_dropped": WHOLE}
    ),
    "ChatAnswer": _object(
        {
            **FACTS,
            "object": {"const": "chat.completion"},
            "choices": _list(
                _object(
                    {
                        "index": WHOLE,
                        "message": _object({"role": {"const": "assistant"}, "content": TEXT}),
                        "finish_reason": FINISH,
                        "logprobs": _maybe(
                            _object({"content": _list(_object({**TOKEN, "top_logprobs": _list(_object(TOKEN))}))})
                        ),
                    }
                )
            ),
        }
    ),
    "CompletionAnswer": _object(
        {
            **FACTS,
            "object": {"const": "text_completion"},
            "choices": _list(
                _object(
                    {
                        "index": WHOLE,
                        "text": TEXT,
                        "finish_reason": FINISH,
                        "logprobs": _maybe(
                            _object(
                                {
                                    "tokens": _list(TEXT),
                                    "token_logprobs": _list(NUMBER),
                                    "top_logprobs": _list({"type": "object", "additionalProperties": NUMBER}),
                                    "text_offset": _list(WHOLE),
                                }
                            )
                        ),
                    }
                )
            ),
        }
    ),
    "Model": _object(
        {
            "id": TEXT,
            "object": {"const": "model"},
            "created": WHOLE,
            "owned_by": TEXT,
            "microgpt": _object(
                {"chat": {"type": "boolean"}, "block_size": WHOLE, "vocab_size": WHOLE, "parameters": WHOLE}
            ),
        }
    ),
    "Models": _object({"object": {"const": "list"}, "data": _list(_ref("Model"))}),
}


def documented(
    answer: str,
    body: type[Body] | None = None,
    error: str = "Error",
    stream: bool = False,
    missing: bool = False,
    unready: str = "",
) -> dict[str, Any]:
    """What a route's decorator is told for the document.

    Args:
        answer: the schema of a good answer, among ANSWERS; empty for plain text.
        body: of the request.
        error: the schema of errors.
        stream: whether the answer may be a stream of events.
        missing: whether the path can name what is not there.
        unready: the schema of a 503, where it is no error.
    """
    content: dict[str, Any] = {JSON: {"schema": _ref(answer)}} if answer else {}
    if stream or not answer:
        content |= (
            {"text/event-stream": {"schema": _object({"data": TEXT})}} if stream else {"text/plain": {"schema": TEXT}}
        )
    responses: dict[int, Any] = {200: {"description": "the answer", "content": content}}
    statuses = WRITING if body else READING | ({404: WRITING[404]} if missing else {})
    for status, text in statuses.items():
        schema = _ref(unready if unready and status == 503 else error)
        responses[status] = {"description": text, "content": {JSON: {"schema": schema}}}
    more: dict[str, Any] = {}
    if body:
        more["requestBody"] = {"required": True, "content": {JSON: {"schema": _ref(body.__name__)}}}
    return {"responses": responses, "openapi_extra": more}


def document(app: FastAPI) -> dict[str, Any]:
    """The whole document."""
    if app.openapi_schema is None:
        made = get_openapi(
            title="microgpt",
            version=version("microgpt"),
            description="Small GPTs over HTTP: OpenAI's API, a plain one, health and metrics.",
            routes=app.routes,
        )
        _, bodies = models_json_schema(
            [(body, "validation") for body in BODIES], ref_template="#/components/schemas/{model}"
        )
        for operations in made["paths"].values():
            for operation in operations.values():
                operation["responses"].pop("422", None)  # FastAPI's own, which is never given here
        schemes = {"key": {"type": "http", "scheme": "bearer"}}
        made["components"] = {"schemas": {**bodies["$defs"], **ANSWERS}, "securitySchemes": schemes}
        made["security"] = [{}, {"key": []}]
        app.openapi_schema = made
    return app.openapi_schema
