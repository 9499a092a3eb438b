"""The lab's app: prior art E's REST endpoints and WebSocket, and what goes beyond them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.websockets import WebSocketDisconnect

from microgpt import web
from microgpt.config.build import is_name
from microgpt.errors import ModelError
from microgpt.lab.compare import differences
from microgpt.lab.known import listed, named
from microgpt.lab.log import Log
from microgpt.lab.messages import (
    REQUESTS,
    Attach,
    Begun,
    Compare,
    Compared,
    Fork,
    Inspect,
    Listing,
    Paused,
    Ping,
    Place,
    Run,
    Running,
    Runs,
    Sample,
    Start,
    State,
    Subscribe,
)
from microgpt.lab.refusals import Refusal, said
from microgpt.lab.replay import LIMIT, exported, read
from microgpt.lab.sessions import Limits, Sessions
from microgpt.lab.viewer import MOST_QUESTIONS, Viewer
from microgpt.web.access import GONE

STATIC = Path(__file__).with_name("static")
SHARED = Path(web.__file__).parent / "static"
#: one of the libraries that npm installs
VENDOR = "vendor/preact.js"


def make_app(limits: Limits | None = None, run: Path | None = None) -> FastAPI:
    """The app; its lifespan ends every session.

    Args:
        limits: of what it takes on.
        run: a run folder that a first session follows.
    """
    sessions = Sessions(limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        await sessions.open()
        if run is not None:
            await first(sessions, run)
        yield
        await sessions.close()

    app = FastAPI(title="microgpt lab", docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan)
    app.state.sessions = sessions
    add_sessions(app, sessions)
    add_driving(app, sessions)
    add_looking(app, sessions)
    add_files(app, sessions)
    add_socket(app, sessions)
    add_page(app)
    add_errors(app)
    return app


async def first(sessions: Sessions, run: Path) -> None:
    """Follow a run from the start.

    Raises:
        ModelError: it cannot be.
    """
    try:
        await sessions.attach(run)
    except Refusal as refusal:
        await sessions.close()
        raise ModelError(f"{run} cannot be followed: {refusal.detail}", "see `microgpt runs` for others") from None


def begun(session: Log) -> Begun:
    """What who starts a session is told."""
    return Begun(session_id=session.session_id, metadata=session.known)


def add_sessions(app: FastAPI, sessions: Sessions) -> None:
    """Sessions: list, start, look up, fork, close."""

    @app.get("/api/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/api/options")
    async def options() -> dict[str, Any]:
        from microgpt.lab.options import options as all_options

        return all_options()

    @app.get("/api/sessions")
    async def listing() -> Listing:
        return Listing(sessions=[s.listed() for s in sessions.all.values()])

    @app.post("/api/session/start")
    async def start(asked: Start | None = None) -> Begun:
        return begun(await sessions.start(asked or Start()))

    @app.get("/api/session/{session_id}")
    async def state(session_id: str) -> State:
        session = sessions.get(session_id)
        return State(session_id=session_id, running=session.running, metadata=session.known)

    @app.delete("/api/session/{session_id}")
    async def close(session_id: str) -> dict[str, bool]:
        await sessions.remove(sessions.get(session_id))
        return {"closed": True}

    @app.post("/api/session/{session_id}/fork")
    async def fork(session_id: str, asked: Fork | None = None) -> Begun:
        return begun(await sessions.fork(sessions.get(session_id), asked or Fork(off=[])))

    @app.get("/api/session/{session_id}/branches")
    async def branches(session_id: str) -> Listing:
        return Listing(sessions=[s.listed() for s in sessions.family(sessions.get(session_id))])


def add_driving(app: FastAPI, sessions: Sessions) -> None:
    """Training: step, run, pause, reset, sample."""

    @app.post("/api/session/{session_id}/step")
    async def step(session_id: str) -> dict[str, Any]:
        return await sessions.get(session_id).one_step()

    @app.post("/api/session/{session_id}/run")
    async def run(session_id: str, asked: Run | None = None) -> Running:
        wanted = asked or Run()
        steps = await sessions.get(session_id).run(wanted)
        return Running(running=True, steps=steps, delay_ms=wanted.delay_ms)

    @app.post("/api/session/{session_id}/pause")
    async def pause(session_id: str) -> Paused:
        await sessions.get(session_id).pause()
        return Paused(running=False)

    @app.post("/api/session/{session_id}/reset")
    async def reset(session_id: str) -> State:
        session = sessions.get(session_id)
        await session.reset()
        return State(session_id=session_id, running=False, metadata=session.known)

    @app.post("/api/session/{session_id}/sample")
    async def sample(session_id: str, asked: Sample | None = None) -> dict[str, Any]:
        return await sessions.get(session_id).sample(asked or Sample(off=[]))


def add_looking(app: FastAPI, sessions: Sessions) -> None:
    """Looking: scalars, samples, panels."""

    @app.get("/api/session/{session_id}/scalars")
    async def scalars(session_id: str, since: int = 0) -> dict[str, Any]:
        session = sessions.get(session_id)
        return session.scalars(session.rows[session.place_after(since) :])

    @app.get("/api/session/{session_id}/samples")
    async def samples(session_id: str) -> dict[str, Any]:
        return {"samples": sessions.get(session_id).samples}

    @app.post("/api/session/{session_id}/inspect")
    async def inspect(session_id: str, asked: Inspect) -> dict[str, Any]:
        return await sessions.get(session_id).answered(asked)


def add_files(app: FastAPI, sessions: Sessions) -> None:
    """Traces and runs."""

    @app.get("/api/session/{session_id}/trace")
    async def trace(session_id: str) -> Response:
        found = await exported(sessions.get(session_id))
        content = await asyncio.to_thread(lambda: json.dumps(found, allow_nan=False).encode())
        name = f'attachment; filename="microgpt-{session_id[:16]}.json"'
        return Response(content, media_type="application/json", headers={"content-disposition": name})

    @app.post("/api/trace")
    async def take(request: Request) -> Begun:
        content = await request.body()
        if len(content) > LIMIT:
            raise Refusal(413, f"the file is over the limit of {LIMIT:,} bytes")
        return begun(sessions.replay(await asyncio.to_thread(read, content)))

    @app.post("/api/compare")
    async def compare(asked: Compare) -> Compared:
        places = (asked.a, asked.b)
        found = [await sessions.get(place.session_id).weights(place.step) for place in places]
        (at_a, a, loss_a), (at_b, b, loss_b) = found
        return Compared(
            a=Place(session_id=asked.a.session_id, step=at_a),
            b=Place(session_id=asked.b.session_id, step=at_b),
            loss=(loss_a, loss_b),
            parameters=await asyncio.to_thread(differences, a, b),
        )

    @app.get("/api/runs")
    async def runs() -> Runs:
        return Runs(runs=await asyncio.to_thread(listed))

    @app.post("/api/runs/attach")
    async def attach(asked: Attach) -> Begun:
        return begun(await sessions.attach(await asyncio.to_thread(named, asked.run)))


def add_page(app: FastAPI) -> None:
    """The page and its files."""

    @app.api_route("/", methods=["GET", "HEAD"], include_in_schema=False)
    @app.api_route("/static/{path:path}", methods=["GET", "HEAD"], include_in_schema=False)
    async def page(path: str = "index.html") -> Response:
        if path == "index.html" and not (STATIC / VENDOR).is_file():
            return PlainTextResponse(
                "the page needs preact, htm and uPlot: run `make setup` where npm is installed", 503
            )
        found = static_file(path)
        if found is None:
            raise HTTPException(404)
        kind = "text/javascript" if found.suffix == ".js" else None  # as modules must have, whatever the system says
        return FileResponse(found, media_type=kind)


def static_file(path: str) -> Path | None:
    """A file of the page, or one that it shares with the chat page; None where there is none."""
    parts = path.split("/")
    if len(parts) > 4 or not all(is_name(part) for part in parts):
        return None
    places = (folder.joinpath(*parts) for folder in (STATIC, SHARED))
    return next((place for place in places if place.is_file()), None)


def add_socket(app: FastAPI, sessions: Sessions) -> None:
    """The WebSocket of a session."""

    @app.websocket("/ws/{session_id}")
    async def talk(socket: WebSocket, session_id: str) -> None:
        found = sessions.all.get(session_id)
        await socket.accept()
        if found is None:
            await socket.send_text(json.dumps({"v": 1, "type": "error", "detail": "there is no such session"}))
            await socket.close(4404)
            return
        if sum(len(s.viewers) for s in sessions.all.values()) >= sessions.limits.viewers:
            await socket.close(1013)
            return
        viewer = found.join()
        writing = asyncio.create_task(viewer.write(socket))
        reading = asyncio.create_task(listen(socket, found, viewer))
        try:
            await asyncio.wait((writing, reading), return_when=asyncio.FIRST_COMPLETED)
        finally:
            found.leave(viewer)
            for task in (writing, reading):
                task.cancel()
                with suppress(asyncio.CancelledError, WebSocketDisconnect, RuntimeError, OSError):
                    await task


async def listen(socket: WebSocket, session: Log, viewer: Viewer) -> None:
    """Hear a browser until it goes."""
    asking: set[asyncio.Task[None]] = set()
    try:
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            try:
                hear(message, session, viewer, asking)
            except Refusal as refusal:
                viewer.tell({"v": 1, "type": "error", "detail": refusal.detail, "id": None})
    finally:
        for task in asking:
            task.cancel()


def hear(message: Any, session: Log, viewer: Viewer, asking: set[asyncio.Task[None]]) -> None:
    """Do what a message of a browser says.

    Raises:
        Refusal: it is none of this protocol.
    """
    text = message.get("text")
    if text is None:
        raise Refusal(422, "messages are JSON texts, not binary")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise Refusal(422, "the message is no JSON") from None
    kind = content.get("type") if isinstance(content, dict) else None
    model = REQUESTS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise Refusal(422, f"the message has no known type; there are {', '.join(REQUESTS)}")
    try:
        asked = model.model_validate(content)
    except ValidationError as error:
        raise Refusal(422, said(error.errors())) from None
    if isinstance(asked, Subscribe):
        session.subscribe(viewer, asked)
    elif isinstance(asked, Ping):
        viewer.tell({"v": 1, "type": "pong", "id": asked.id})
    elif isinstance(asked, Inspect):
        if viewer.questions >= MOST_QUESTIONS:
            raise Refusal(429, "too many questions are waiting for their answer")
        viewer.questions += 1
        task = asyncio.create_task(answer(session, viewer, asked))
        asking.add(task)
        task.add_done_callback(asking.discard)


async def answer(session: Log, viewer: Viewer, asked: Inspect) -> None:
    """A panel, to who has asked."""
    try:
        viewer.answer(await session.question(asked))
    except Refusal as refusal:
        viewer.tell({"v": 1, "type": "error", "detail": refusal.detail, "id": asked.id})
    finally:
        viewer.questions -= 1


def add_errors(app: FastAPI) -> None:
    """Every error as {"detail": ...}."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, refusal: Refusal) -> JSONResponse:
        headers = {"retry-after": "1"} if refusal.status in (429, 503) else None
        return JSONResponse({"detail": refusal.detail}, refusal.status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return JSONResponse({"detail": said(error.errors())}, 422)

    @app.exception_handler(HTTPException)
    async def unrouted(request: Request, error: HTTPException) -> JSONResponse:
        messages = {404: "there is nothing here", 405: "this path does not take that method"}
        detail = messages.get(error.status_code, "the request is not understood")
        return JSONResponse({"detail": detail}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: Exception) -> Response:
        return Response(status_code=GONE)  # for the log: nobody reads it

    @app.exception_handler(Exception)
    async def failed(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": "internal error; the server's log has it under this X-Request-ID"}, 500)
