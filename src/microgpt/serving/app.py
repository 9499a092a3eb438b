"""The server's app: routes, health, metrics, the chat page, and what an error looks like."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from microgpt import web
from microgpt.config.build import is_name
from microgpt.serving import openai_api, plain_api
from microgpt.serving.answering import Gone
from microgpt.serving.context import Context
from microgpt.serving.openapi import document, documented
from microgpt.serving.refusal import Refusal
from microgpt.web.access import GONE
from microgpt.web.errors import error_body

PAGE = Path(web.__file__).parent / "static"


def make_app(context: Context) -> FastAPI:
    """The app; its lifespan loads the models, and requests are refused until they are there."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        loading = context.models.start()
        yield
        loading.cancel()
        with suppress(asyncio.CancelledError):
            await loading

    app = FastAPI(title="microgpt", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.include_router(plain_api.routes(context))
    app.include_router(openai_api.routes(context))
    add_status(app, context)
    add_errors(app)

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route("/static/{name}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(name: str = "index.html") -> FileResponse:
        if not is_name(name) or not (PAGE / name).is_file():
            raise HTTPException(404)
        return FileResponse(PAGE / name)

    app.openapi = lambda: document(app)
    return app


def add_status(app: FastAPI, context: Context) -> None:
    """What other programs ask of a server: is it alive, is it ready, what has it done."""
    begun = time.monotonic()

    @app.get("/health", **documented("Health", error="PlainError"))
    async def health() -> JSONResponse:
        names = sorted(context.models.workers)
        return JSONResponse({"status": "ok", "models": names, "uptime_s": round(time.monotonic() - begun, 1)})

    @app.get("/ready", **documented("Ready", error="PlainError", unready="Ready"))
    async def ready() -> JSONResponse:
        if context.models.ready:
            return JSONResponse({"status": "ready"})
        status = "draining" if context.models.draining else "loading"
        return JSONResponse({"status": status}, 503, {"retry-after": "1"})

    @app.get("/metrics", **documented("", error="PlainError"))
    async def metrics() -> Response:
        return Response(context.metrics.text(), media_type=CONTENT_TYPE_LATEST)


def add_errors(app: FastAPI) -> None:
    """Every error as JSON in the shape of the API that was asked."""

    def answer(
        request: Request, status: int, message: str, headers: Mapping[str, str] | None = None, **more: str | None
    ) -> JSONResponse:
        return JSONResponse(error_body(request.url.path, status, message, **more), status, headers)

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        more = {"param": refusal.param, "code": refusal.code}
        return answer(request, refusal.status, refusal.message, refusal.headers, **more)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        messages = {404: "there is nothing here", 405: "this path does not take that method"}
        message = messages.get(error.status_code, "the request is not understood")
        return answer(request, error.status_code, message, error.headers)

    @app.exception_handler(Gone)
    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)  # for the log: nobody reads it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return answer(request, 500, "internal error; the server's log has it under this X-Request-ID")
