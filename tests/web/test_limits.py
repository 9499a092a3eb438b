"""How much of one request a server takes, and how many at once."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest


def pieces(count: int, size: int = 100):
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize("path, limit", [("/echo", 1000), ("/v1/echo", 1000), ("/microgpt/echo", 5000)])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_may_be_as_large_as_its_path_allows(server, path: str, limit: int, chunked: bool) -> None:
    def send(size: int) -> httpx.Response:
        content = pieces(size // 100) if chunked else b"x" * size
        return httpx.post(server.url + path, content=content)

    assert send(limit).json()["bytes"] == limit
    refused = send(limit + 100)
    assert refused.status_code == 413
    message = refused.json()["error"]["message"] if path.startswith("/v1/") else refused.json()["error"]
    assert f"{limit:,}" in message


def test_a_framework_that_reads_the_body_itself_says_413_too(server) -> None:
    def body():
        yield b'{"a": "'
        yield from pieces(20)
        yield b'"}'

    kind = {"content-type": "application/json"}
    assert httpx.post(server.url + "/json", content=body(), headers=kind).status_code == 413
    assert httpx.post(server.url + "/json", content=b'{"a": 1}', headers=kind).json() == {"keys": 1}


def test_the_rest_of_a_refused_body_is_not_waited_for(server) -> None:
    with server.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.sendall(b"7d0\r\n" + b"x" * 2000 + b"\r\n")  # and never its end
        said = b""
        while piece := client.recv(65536):
            said += piece
    assert said.startswith(b"HTTP/1.1 413 ")
    assert b"connection: close" in said.lower()
    assert said.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("declared", [b"2000", b"0002000", b"999999999999999999"])
def test_a_declared_size_is_refused_before_the_body_comes(server, declared: bytes) -> None:
    said = server.raw(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: " + declared + b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 413 ")


def test_a_client_that_goes_on_sending_still_reads_the_refusal(server) -> None:
    size = 8 << 20
    with server.connect() as client:
        client.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
        client.sendall(b"x" * size)  # more than the buffers on the way hold: it ends because the server reads on
        assert client.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_the_unread_body_of_a_refused_request_is_no_second_request(server) -> None:
    smuggled = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\nContent-Length: %d\r\n\r\n" % len(smuggled)
    said = server.raw(head + smuggled + smuggled)
    assert said.startswith(b"HTTP/1.1 403 ")
    assert said.count(b"HTTP/1.1") == 1


def test_an_answer_that_does_not_begin_in_time_is_408(serving) -> None:
    server = serving(answer_s=0.5)
    late = httpx.get(server.url + "/slow/30", timeout=20)
    assert late.status_code == 408
    assert "0.5 seconds" in late.json()["error"]
    assert httpx.get(server.url + "/stream/1.5", timeout=20).text.endswith("end")


def test_load_over_the_limit_is_turned_away_at_once(serving) -> None:
    server = serving(concurrency=2)
    with httpx.Client(base_url=server.url, timeout=60) as client:
        with client.stream("GET", "/stream/600") as first, client.stream("GET", "/stream/600") as second:
            assert [first.status_code, second.status_code] == [200, 200]  # both have begun, and stay
            answer = client.get("/slow/0")
            assert answer.status_code == 503
            assert int(answer.headers["retry-after"]) >= 1
            assert client.get("/health").status_code == 200
        until = time.monotonic() + 60
        while client.get("/slow/0").status_code != 200:
            assert time.monotonic() < until


def test_a_thousand_requests_at_once_are_answered_or_turned_away(serving) -> None:
    server = serving(concurrency=20)
    codes: list[int] = []
    lock = threading.Lock()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=60) as client:
            for _ in range(20):
                answer = client.get("/slow/0.05")
                assert answer.status_code == 200 or "retry-after" in answer.headers
                with lock:
                    codes.append(answer.status_code)

    with ThreadPoolExecutor(50) as pool:
        for future in [pool.submit(ask) for _ in range(50)]:
            future.result()
    assert len(codes) == 1000
    assert set(codes) == {200, 503}
    assert httpx.get(server.url + "/slow/0").status_code == 200


def test_the_shape_of_an_error_is_its_surfaces(server) -> None:
    openai = httpx.post(server.url + "/v1/echo", content=b"x" * 2000).json()
    assert set(openai["error"]) == {"message", "type", "param", "code"}
    assert openai["error"]["type"] == "invalid_request_error"
    other = httpx.post(server.url + "/echo", content=b"x" * 2000).json()
    assert isinstance(other["error"], str)
