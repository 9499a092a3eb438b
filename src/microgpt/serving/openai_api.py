"""OpenAI's API: `/v1/chat/completions`, `/v1/completions` and `/v1/models`."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from microgpt.config.schema import SamplingConfig
from microgpt.inference import engine
from microgpt.inference.chat import reply_ends
from microgpt.inference.load import Model
from microgpt.serving import prompts
from microgpt.serving.answering import EventStream, whole
from microgpt.serving.context import Context
from microgpt.serving.openapi import documented
from microgpt.serving.reading import read
from microgpt.serving.refusal import Refusal
from microgpt.serving.schemas import CHOICES, SEED, ChatBody, CompletionBody, Options
from microgpt.serving.shapes import Chat, Completion, Usage
from microgpt.serving.worker import Worker

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it
TINY = 1e-6


def routes(context: Context) -> APIRouter:
    """The three paths, and that of one model."""
    router = APIRouter()

    @router.get("/v1/models", **documented("Models"))
    async def models() -> JSONResponse:
        workers = context.models.workers
        return JSONResponse({"object": "list", "data": [workers[name].card for name in sorted(workers)]})

    @router.get("/v1/models/{model}", **documented("Model", missing=True))
    async def model(model: str) -> JSONResponse:
        return JSONResponse(context.models.get(model).card)

    @router.post("/v1/chat/completions", **documented("ChatAnswer", ChatBody, stream=True))
    async def chat(request: Request) -> Response:
        body = await read(request, ChatBody)
        if body.top_logprobs and not body.logprobs:
            raise Refusal(400, "top_logprobs needs logprobs to be true", param="top_logprobs", code="invalid_value")
        top = (body.top_logprobs or 0) if body.logprobs else None
        name, limit = "max_tokens", body.max_tokens
        if body.max_completion_tokens is not None:
            name, limit = "max_completion_tokens", body.max_completion_tokens
        with context.models.get(body.model).held() as worker:
            model = worker.model
            settings = settings_of(body, model, limit, name)
            turns = [("system" if m.role == "developer" else m.role, m.text) for m in body.messages]
            ids, dropped = await prompts.conversation(model, turns, limit)
            requests = requests_of(body, model, [ids], settings, reply_ends(model.tokenizer), top)
            context.metrics.conversations.labels(worker.name).inc()
            shape = Chat(worker.name, model.tokenizer, Usage(len(ids), dropped), top is not None, wants_usage(body))
            return await answer(request, body, worker, requests, shape)

    @router.post("/v1/completions", **documented("CompletionAnswer", CompletionBody, stream=True))
    async def complete(request: Request) -> Response:
        body = await read(request, CompletionBody)
        if body.echo:
            raise Refusal(400, "echo is not supported; put the prompt before the answer yourself", param="echo")
        with context.models.get(body.model).held() as worker:
            model = worker.model
            settings = settings_of(body, model, body.max_tokens or min(DEFAULT_TOKENS, model.config.block_size))
            ids = [await prompts.text(model, prompt) for prompt in prompts_of(body)]
            requests = requests_of(body, model, ids, settings, model.tokenizer.ends, body.logprobs)
            usage = Usage(sum(map(len, ids)))
            shape = Completion(worker.name, model.tokenizer, usage, body.logprobs is not None, wants_usage(body))
            return await answer(request, body, worker, requests, shape)

    async def answer(
        request: Request, body: Options, worker: Worker, requests: Sequence[engine.Request], shape: Completion
    ) -> Response:
        ticket = context.submit(worker, requests, bool(body.stream))
        if body.stream:
            return EventStream(ticket, shape, context.limit_s, lambda tokens: context.ended(worker, ticket, tokens))
        parts = await whole(ticket, request.receive)
        context.ended(worker, ticket, sum(part.count for part in parts))
        return JSONResponse(shape.whole(parts))

    return router


def settings_of(body: Options, model: Model, limit: int | None, name: str = "max_tokens") -> SamplingConfig:
    """How to draw, as a request says it; what it does not say changes nothing.

    Raises:
        Refusal: a limit is beyond what the model can.
    """
    block_size = model.config.block_size
    if limit is not None and limit > block_size:
        message = f"{name} must be at most {block_size:,}, the context of this model"
        raise Refusal(400, message, param=name, code="invalid_value")
    if body.min_tokens is not None and body.min_tokens > (limit or block_size):
        message = f"min_tokens must be at most {limit or block_size:,}, the most tokens of the answer"
        raise Refusal(400, message, param="min_tokens", code="invalid_value")
    if body.stream_options is not None and not body.stream:
        message = "stream_options are only for stream: true"
        raise Refusal(400, message, param="stream_options", code="invalid_value")
    return prompts.sampling(
        model,
        temperature=body.temperature,
        top_k=body.top_k,
        top_p=None if body.top_p is None else max(body.top_p, TINY),  # 0 keeps the likeliest token alone
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        frequency_penalty=body.frequency_penalty,
        presence_penalty=body.presence_penalty,
        min_new_tokens=body.min_tokens,
        max_new_tokens=limit,
        stop=[body.stop] if isinstance(body.stop, str) else body.stop,
    )


def requests_of(
    body: Options,
    model: Model,
    ids: Sequence[Sequence[int]],
    settings: SamplingConfig,
    ends: Sequence[int],
    top: int | None,
) -> list[engine.Request]:
    """A request to the engine for each answer; the i-th is drawn with seed + i.

    Raises:
        Refusal: too many answers, or a bias for a token that does not exist.
    """
    count = body.n or 1
    if count * len(ids) > CHOICES:
        message = f"n times the number of prompts must be at most {CHOICES}"
        raise Refusal(400, message, param="n", code="invalid_value")
    bias = {int(token): value for token, value in (body.logit_bias or {}).items()}
    if any(token >= model.tokenizer.vocab_size for token in bias):
        message = f"logit_bias names a token that does not exist; ids are below {model.tokenizer.vocab_size:,}"
        raise Refusal(400, message, param="logit_bias", code="invalid_value")
    seed = secrets.randbits(62) if body.seed is None else body.seed % (SEED + 1)
    return [
        engine.Request(prompt, settings, ends, seed + i * count + j, bias or None, top)
        for i, prompt in enumerate(ids)
        for j in range(count)
    ]


def prompts_of(body: CompletionBody) -> Sequence[str | Sequence[int]]:
    """The prompts of a completion: one, or several."""
    if isinstance(body.prompt, str) or isinstance(body.prompt[0], int):
        return [cast("str | list[int]", body.prompt)]
    return cast("list[str] | list[list[int]]", body.prompt)


def wants_usage(body: Options) -> bool:
    """Whether a stream shall end with the usage."""
    return body.stream_options is not None and bool(body.stream_options.include_usage)
