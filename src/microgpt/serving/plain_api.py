"""The plain API of `/microgpt/v1/`: `generate` and `chat`, a few settings and a whole answer."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from microgpt.inference import engine
from microgpt.inference.chat import reply_ends
from microgpt.serving import prompts
from microgpt.serving.answering import whole
from microgpt.serving.context import Context
from microgpt.serving.openapi import documented
from microgpt.serving.reading import read
from microgpt.serving.schemas import GenerateBody, TalkBody


def routes(context: Context) -> APIRouter:
    """The two paths; the model is the first that is served."""
    router = APIRouter(prefix="/microgpt/v1")

    @router.post("/generate", **documented("Samples", GenerateBody, "PlainError"))
    async def generate(request: Request) -> JSONResponse:
        body = await read(request, GenerateBody)
        with context.models.get(context.models.first).held() as worker:
            model = worker.model
            settings = prompts.sampling(model, temperature=body.temperature, max_new_tokens=body.max_tokens)
            bos, ends = model.tokenizer.bos, model.tokenizer.ends
            requests = [engine.Request([bos], settings, ends, body.seed + i) for i in range(body.num_samples)]
            ticket = context.submit(worker, requests)
            parts = await whole(ticket, request.receive)
            context.ended(worker, ticket, sum(part.count for part in parts))
            return JSONResponse({"samples": [part.text for part in parts]})

    @router.post("/chat", **documented("Reply", TalkBody, "PlainError"))
    async def chat(request: Request) -> JSONResponse:
        body = await read(request, TalkBody)
        with context.models.get(context.models.first).held() as worker:
            model = worker.model
            turns = [(turn.role, turn.content) for turn in body.messages]
            ids, dropped = await prompts.conversation(model, turns, body.max_tokens)
            settings = prompts.sampling(model, temperature=body.temperature, max_new_tokens=body.max_tokens)
            context.metrics.conversations.labels(worker.name).inc()
            ticket = context.submit(worker, [engine.Request(ids, settings, reply_ends(model.tokenizer), body.seed)])
            (part,) = await whole(ticket, request.receive)
            context.ended(worker, ticket, part.count)
            return JSONResponse({"role": "assistant", "content": part.text, "tokens_dropped": dropped})

    return router
