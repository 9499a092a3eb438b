"""Many clients at once: they share the model token by token, leave when they like, and are told to come back."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

Running = Any
Serve = Callable[..., Running]
ACTIVE = 'microgpt_active_sequences{model="tireless"}'
WAITING = 'microgpt_queue_depth{model="tireless"}'
HELLO = [{"role": "user", "content": "hello"}]
#: what goes on for seconds
LONG = {"model": "tireless", "prompt": "the", "max_tokens": 16000, "min_tokens": 16000, "stream": True}


def events(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The JSON of server-sent events, up to [DONE]."""
    for line in lines:
        if line == "data: [DONE]":
            return
        if line:
            assert line.startswith("data: "), line
            yield json.loads(line.removeprefix("data: "))


@contextmanager
def streaming(server: Running, **options: Any) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a stream, over a connection of its own that closes with the block."""
    with httpx.Client(base_url=server.url, timeout=120) as client:
        with client.stream("POST", "/v1/completions", json={**LONG, **options}) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield events(answer.iter_lines())


def test_who_comes_later_does_not_wait_for_who_came_first(several: Running) -> None:
    with streaming(several) as first:
        next(first)
        with streaming(several, max_tokens=3, min_tokens=3) as second:
            assert list(second)[-1]["choices"][0]["finish_reason"] == "length"
        assert several.metrics()[ACTIVE] == 1  # the first is still being written
        assert next(first)["choices"][0]["finish_reason"] is None


def test_a_client_that_goes_frees_its_place(several: Running) -> None:
    several.until(lambda: several.metrics()[ACTIVE] == 0)
    with streaming(several) as stream:
        next(stream)
        assert several.metrics()[ACTIVE] == 1
        before = several.metrics()['microgpt_tokens_generated_total{model="tireless"}']
    several.until(lambda: several.metrics()[ACTIVE] == 0)
    after = several.metrics()['microgpt_tokens_generated_total{model="tireless"}']
    assert after - before < 12_000  # of 16,000


def test_a_client_that_goes_while_it_waits_for_a_whole_answer_frees_its_place(several: Running) -> None:
    several.until(lambda: several.metrics()[ACTIVE] == 0)
    body = json.dumps({**LONG, "stream": False}).encode()
    head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Request-ID: gone-early\r\n"
    host, _, port = several.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        several.until(lambda: several.metrics()[ACTIVE] == 1)
    several.until(lambda: several.metrics()[ACTIVE] == 0)
    several.until(lambda: "gone-early" in several.log.read_text())  # the line comes a moment after the place is free
    (line,) = [line for line in several.log.read_text().splitlines() if "gone-early" in line]
    assert json.loads(line)["status"] == 499


def test_a_full_line_is_429_and_is_told_when_to_come_back(several: Running) -> None:
    several.until(lambda: several.metrics()[ACTIVE] == 0)
    with streaming(several, n=16) as first, streaming(several, n=8) as second:
        next(first)
        assert several.metrics()[ACTIVE] == 4
        assert several.metrics()[WAITING] == 20
        refused = several.post("/v1/completions", LONG)
        assert refused.status_code == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.json()["error"]["code"] == "queue_full"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        other = several.post("/v1/completions", {"model": "talker", "prompt": "the"})
        assert other.status_code == 200  # another model has a line of its own
        assert second is not None


def test_all_who_wait_in_line_are_answered(several: Running) -> None:
    def ask(seed: int) -> str:
        body = {"model": "talker", "prompt": "the", "max_tokens": 30, "seed": seed}
        answer = httpx.post(f"{several.url}/v1/completions", json=body, timeout=120)
        return answer.json()["choices"][0]["text"]

    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(ask, range(20)))
    assert together == [ask(seed) for seed in range(20)]  # and the company changes nothing


@pytest.mark.slow
def test_a_thousand_at_once_are_answered_or_told_to_come_back(serve: Serve, talker: Path) -> None:
    server = serve("--model-dir", talker)
    process = psutil.Process(server.process.pid)
    server.post("/v1/completions", {"max_tokens": 5})
    before = process.memory_info().rss
    body = json.dumps({"prompt": "the " * 20, "max_tokens": 40, "min_tokens": 40, "n": 2}).encode()
    head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    host, _, port = server.url.removeprefix("http://").partition(":")

    async def one() -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(head % len(body) + body)
        answer = await reader.read()
        writer.close()
        return int(answer[9:12]), answer

    async def all_at_once() -> list[tuple[int, bytes]]:
        return await asyncio.wait_for(asyncio.gather(*(one() for _ in range(1000))), 120)

    answers = asyncio.run(all_at_once())
    counts = Counter(status for status, _ in answers)
    assert set(counts) <= {200, 429, 503}, counts
    assert counts[200] >= 80  # at least those who found a place at once
    assert all(b"retry-after: " in answer for status, answer in answers if status != 200)
    assert process.memory_info().rss - before < 200 << 20
    server.until(lambda: server.metrics()['microgpt_active_sequences{model="microgpt"}'] == 0)
    assert server.post("/v1/completions", {"max_tokens": 5}).status_code == 200
    answered = sum(v for k, v in server.metrics().items() if k.startswith('microgpt_requests_total{path="/v1/com'))
    assert answered >= counts[200]


def test_a_stream_that_takes_too_long_ends_with_an_error(serve: Serve, tireless: Path) -> None:
    server = serve(f"--model=tireless={tireless}", "--timeout", "1")
    with streaming(server, n=8) as stream:
        *_, last = stream
    assert last == {"error": {"message": "the answer was not complete within 1 seconds",
                              "type": "invalid_request_error", "param": None, "code": "timeout"}}  # fmt: skip
    server.until(lambda: server.metrics()[ACTIVE] == 0)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_short_streams_end_in_order_before_the_server_does(
    serve: Serve, tireless: Path, number: signal.Signals
) -> None:
    server = serve(f"--model=tireless={tireless}")
    with streaming(server, max_tokens=2000, min_tokens=2000) as stream:
        next(stream)
        server.process.send_signal(number)
        rest = list(stream)
    assert rest[-1]["choices"][0]["finish_reason"] == "length"
    assert server.process.wait(timeout=30) == 128 + number
    assert "stopped: microgpt has ended its answers" in server.said()[-1]


@pytest.mark.slow
def test_long_streams_are_cut_and_told_so(serve: Serve, tireless: Path) -> None:
    server = serve(f"--model=tireless={tireless}")
    with streaming(server, n=16) as stream:
        next(stream)
        server.process.send_signal(signal.SIGTERM)
        *_, last = stream
        assert last["error"]["code"] == "stopping"
    assert server.process.wait(timeout=30) == 143  # the whole stream would take longer
