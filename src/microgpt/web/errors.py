"""What a refused request is told: a JSON body in the shape of the surface it asked, and nothing of the inside."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.types import Scope, Send

#: the `type` of an OpenAI error; any other 4xx is an invalid request, any other status the server's own fault
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_body(
    path: str,
    status: int,
    message: str,
    *,
    kind: str | None = None,
    param: str | None = None,
    code: str | None = None,
) -> dict[str, Any]:
    """The JSON body of an error.

    Args:
        path: the path that was asked; below `/v1/` the body has OpenAI's shape, below `/api/` and `/ws/` it is
            `{"detail": message}`, elsewhere `{"error": message}`.
        status: the HTTP status.
        message: what is wrong and how to mend it, with no path, address or repr in it.
        kind: OpenAI's `type`; made from the status where it is not given.
        param: the field that is wrong.
        code: a short name for programs, such as `model_not_found`.
    """
    if path.startswith(("/api/", "/ws/")):
        return {"detail": message}
    if not path.startswith("/v1/"):
        return {"error": message}
    kind = kind or TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


async def refuse(
    scope: Scope,
    send: Send,
    status: int,
    message: str,
    *,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> None:
    """Answer a request, or a WebSocket that is not accepted yet, with an error."""
    body = json.dumps(error_body(scope["path"], status, message, code=code)).encode()
    fields = {"content-type": "application/json", "content-length": str(len(body)), **(headers or {})}
    raw = [(name.encode(), value.encode()) for name, value in fields.items()]
    prefix = "websocket.http" if scope["type"] == "websocket" else "http"
    if prefix == "websocket.http" and prefix + ".response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": message})
        return
    await send({"type": f"{prefix}.response.start", "status": status, "headers": raw})
    await send({"type": f"{prefix}.response.body", "body": body})
