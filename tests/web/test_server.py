"""Slow and broken clients, and how a server begins and ends."""

from __future__ import annotations

import json
import re
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil
import pytest

from waiting import until

APP = Path(__file__).with_name("app.py")


@pytest.fixture
def many_files():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2048 if hard == resource.RLIM_INFINITY else min(2048, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# What a slow client sends first, and then again and again.
SLOW = {
    "idle": (b"", b""),
    "blank lines": (b"", b"\r\n"),
    "header": (b"GET /health HTTP/1.1\r\nHost: loc", b"x"),
    "kept alive": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "second header": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET ", b"x"),
    "body": (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 900\r\n\r\n", b"x"),
    "chunks": (b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "trailers": (
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n",
        b"A: b\r\n",
    ),
    "other upgrade": (
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"x",
    ),
}


def closed(client: socket.socket, drip: bytes) -> bool:
    """Send a little more and take what has come; whether the server has hung up."""
    try:
        client.send(drip)
        return client.recv(65536) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.usefixtures("many_files")
def test_five_hundred_slow_clients_are_cut_and_others_notice_nothing(serving) -> None:
    server = serving(body_limit=1000)
    kinds = [list(SLOW)[i % len(SLOW)] for i in range(504)]
    slow = {server.connect(): kind for kind in kinds}
    stalled = server.connect()
    stalled.sendall(b"GET /stream/600?size=65536 HTTP/1.1\r\nHost: localhost\r\n\r\n")
    for client, kind in slow.items():
        client.setblocking(False)
        client.send(SLOW[kind][0])

    answers: list[int] = []
    over = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=server.url, timeout=5) as client:
            while not over.wait(0.1):
                answers.append(client.post("/echo", content=b"x" * 900).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        ends = time.monotonic() + 40
        while slow and time.monotonic() < ends:
            slow = {client: kind for client, kind in slow.items() if not closed(client, SLOW[kind][1])}
            time.sleep(0.4)
        assert not slow, f"still open: {set(slow.values())}"
        memory = psutil.Process(server.process.pid).memory_info().rss
        assert memory < 300 << 20  # a stream that no one reads would fill gigabytes in this time
        assert httpx.get(server.url + "/health").json()["streams"] == 1
        until(lambda: httpx.get(server.url + "/health").json()["streams"] == 0)
    finally:
        over.set()
        asking.join()
        stalled.close()
    assert len(answers) > 20
    assert set(answers) == {200}


def test_a_slow_app_and_a_body_that_comes_steadily_are_no_reason_to_cut(serving) -> None:
    server = serving(body_limit=1 << 20)

    def steady():
        for _ in range(5):
            yield b"x" * (128 << 10)
            time.sleep(2.2)

    with server.connect() as slow:
        slow.sendall(b"GET /slow/9 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert httpx.post(server.url + "/echo", content=steady(), timeout=60).json()["bytes"] == 5 * (128 << 10)
        assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_large_body_is_taken_more_than_once(serving) -> None:
    server = serving(body_limit=100 << 20)
    for _ in range(2):
        answer = httpx.post(server.url + "/echo", content=b"x" * (50 << 20), timeout=60)
        assert answer.json()["bytes"] == 50 << 20


def test_bodies_on_their_way_have_a_limit_together(serving) -> None:
    server = serving(body_limit=100 << 20)
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (50 << 20)
    with server.connect() as first, server.connect() as second:
        for client in (first, second):
            client.sendall(head + b"x" * (33 << 20))
        refused = select.select([first, second], [], [], 30)[0]
        assert refused[0].recv(65536).startswith(b"HTTP/1.1 503 ")


@pytest.mark.parametrize(
    "endless", [b"GET / HTTP/1.1\r\nHost: localhost\r\nA: ", b"GET /", b"GET / HTTP/1.1\r\nHost: localhost\r\n"]
)
def test_a_header_has_a_limit(server, endless: bytes) -> None:
    filler = b"A: b\r\n" if endless.endswith(b"\n") else b"xxxxxx"
    with server.connect() as client:
        client.sendall(endless + filler * 30_000)
        assert client.recv(65536).startswith(b"HTTP/1.1 431 ")


def test_trailers_have_a_limit_and_no_say(server) -> None:
    head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    said = server.raw(head + b"1\r\nx\r\n0\r\nX-Trailed: yes\r\n\r\n")
    assert json.loads(said.partition(b"\r\n\r\n")[2])["trailed"] is None
    with server.connect() as client:
        client.sendall(head + b"1\r\nx\r\n0\r\n")
        with pytest.raises(OSError):  # cut long before all of it is taken
            client.sendall(b"A: b\r\n" * 10_000_000)


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET http:// HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_http_is_refused_as_json(server, request_: bytes) -> None:
    said = server.raw(request_)
    assert said.startswith(b"HTTP/1.1 400 "), said
    assert said.count(b"HTTP/1.1 ") == 1
    assert set(json.loads(said.partition(b"\r\n\r\n")[2])) == {"error"}


def test_what_is_no_http_after_a_request_does_not_get_into_its_answer(server) -> None:
    with server.connect() as client:
        client.sendall(b"GET /stream/600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        said = client.recv(65536)
        client.sendall(b"this is no HTTP\r\n\r\n")
        while piece := client.recv(65536):
            said += piece
    assert said.count(b"HTTP/1.1 ") == 1
    until(lambda: httpx.get(server.url + "/health").json()["streams"] == 0)


def test_connections_have_a_limit(serving) -> None:
    server = serving(connections=20)
    held = [server.connect() for _ in range(20)]
    until(lambda: len(psutil.Process(server.process.pid).net_connections("tcp")) >= 21)
    with server.connect() as one_more:
        said = one_more.recv(65536)
    assert said.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: " in said.lower()
    for client in held:
        client.close()

    def answered() -> bool:
        try:
            return httpx.get(server.url + "/health").status_code == 200
        except httpx.TransportError:
            return False

    until(answered)


def test_a_client_that_leaves_ends_its_stream(server) -> None:
    with httpx.stream("GET", server.url + "/stream/600") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        assert httpx.get(server.url + "/health").json()["streams"] == 1
    until(lambda: httpx.get(server.url + "/health").json()["streams"] == 0)


def run(**settings: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(APP), json.dumps(settings)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_a_port_in_use_is_one_line(server) -> None:
    done = run(port=server.port)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(rf"error: port {server.port} on 127.0.0.1 is in use - .*\n", done.stderr)


@pytest.mark.parametrize(
    "settings",
    [{"port": 65536}, {"port": -1}, {"host": "192.0.2.1", "api_key": "k"}, {"host": "no such host", "api_key": "k"}],
)
def test_an_address_that_cannot_be_had_is_one_line(settings: dict[str, object]) -> None:
    done = run(**settings)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"error: .* - .*\n", done.stderr)


def test_a_fault_at_the_start_keeps_its_line_and_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_TEST_FAULT", "start")
    done = run(port=0)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == "error: the model is not there - train one\n"


def test_a_fault_at_the_end_is_in_the_log(serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_TEST_FAULT", "end")
    server = serving()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=120) == 143
    assert "ModelError: the model is not there" in server.log.read_text()


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_lets_open_answers_end(serving, number: signal.Signals, code: int) -> None:
    server = serving()
    with httpx.Client(base_url=server.url, timeout=30) as client, client.stream("GET", "/stream/2") as answer:
        pieces = answer.iter_raw()
        next(pieces)
        server.process.send_signal(number)
        assert b"".join(pieces).endswith(b"end")
    assert server.process.wait(timeout=120) == code
    assert server.log.read_text().splitlines()[-1].startswith("stopped: ")


def test_draining_is_told_and_takes_no_one_new(serving) -> None:
    server = serving()
    with server.connect() as early:
        early.sendall(b"GET /stream/4 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        early.recv(65536)
        server.process.send_signal(signal.SIGTERM)

        def refused() -> bool:
            try:
                server.connect().close()
                return False
            except ConnectionRefusedError:
                return True

        until(refused)
        assert "draining" in server.log.read_text()
        while early.recv(65536):  # it is let go with its answer, and not kept for a second request
            pass
    assert server.process.wait(timeout=120) == 143


def test_what_does_not_end_is_cut(serving) -> None:
    server = serving(drain_s=1.0)
    with server.connect() as stream, server.connect() as thread, server.connect() as idle:
        stream.sendall(b"GET /stream/600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        thread.sendall(b"GET /busy/600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        stream.recv(65536)
        until(lambda: psutil.Process(server.process.pid).num_threads() > 1)
        server.process.send_signal(signal.SIGTERM)
        assert idle.recv(1) == b""
        assert thread.recv(65536).startswith(b"HTTP/1.1 503 ")
        assert server.process.wait(timeout=60) == 143


def test_a_second_signal_cuts_at_once(serving) -> None:
    server = serving(drain_s=3600.0)
    with server.connect() as client:
        client.sendall(b"GET /stream/600 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        client.recv(65536)
        server.process.send_signal(signal.SIGINT)
        time.sleep(1)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=120) == 130


def test_nothing_of_a_lone_slow_reader_is_lost(server) -> None:
    with server.connect() as client:
        client.sendall(b"GET /stream/0.3?size=1000 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        said = b""
        while not said.endswith(b"3\r\nend\r\n0\r\n\r\n"):
            assert select.select([client], [], [], 30)[0]
            said += client.recv(200)
