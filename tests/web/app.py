"""A small server for the tests of this folder: `python app.py '{"port": 0, ...}'`, settings as JSON."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, PlainTextResponse, StreamingResponse

from microgpt.errors import ModelError, guarded
from microgpt.web.security import Security
from microgpt.web.server import serve

streams = 0


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    fault = ModelError("the model is not there", "train one")
    if os.environ.get("WEB_TEST_FAULT") == "start":
        raise fault
    yield
    if os.environ.get("WEB_TEST_FAULT") == "end":
        raise fault


app = FastAPI(lifespan=lifespan)


@app.get("/")
def page() -> PlainTextResponse:
    return PlainTextResponse("page")


@app.get("/health")
async def health() -> dict[str, object]:
    return {"streams": streams}


@app.post("/v1/echo")
@app.post("/microgpt/echo")
@app.post("/echo")
async def echo(request: Request) -> dict[str, object]:
    body = await request.body()
    return {"bytes": len(body), "id": request.state.request_id, "trailed": request.headers.get("x-trailed")}


@app.get("/echo")
async def own_headers() -> JSONResponse:
    return JSONResponse({}, headers={"cache-control": "max-age=60"})


@app.post("/json")
async def parsed(body: dict[str, object]) -> dict[str, int]:
    return {"keys": len(body)}


@app.get("/fault")
async def fault() -> None:
    raise RuntimeError(f"secret {app!r} /etc/passwd")


@app.get("/late-fault")
async def late_fault() -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"begun"
        raise RuntimeError("secret")

    return StreamingResponse(pieces())


@app.get("/slow/{seconds}")
async def slow(seconds: float) -> dict[str, float]:
    await asyncio.sleep(seconds)
    return {"slept": seconds}


@app.get("/busy/{seconds}")
def busy(seconds: float) -> dict[str, float]:
    time.sleep(seconds)
    return {"slept": seconds}


@app.get("/stream/{seconds}")
async def stream(seconds: float, size: int = 8) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        global streams
        streams += 1
        end = time.monotonic() + seconds
        try:
            while time.monotonic() < end:
                yield b"x" * size
                await asyncio.sleep(0.05 if size < 1000 else 0)
            yield b"end"
        finally:
            streams -= 1

    return StreamingResponse(pieces())


@app.websocket("/ws")
async def talk(socket: WebSocket) -> None:
    await socket.accept()
    async for text in socket.iter_text():
        await socket.send_text(str(len(text)))


def drain() -> None:
    print("draining", file=sys.stderr, flush=True)


if __name__ == "__main__":
    settings = json.loads(sys.argv[1])
    sys.exit(guarded(lambda: serve(app, Security(**settings), name="test", draining=drain)))
