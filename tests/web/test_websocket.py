"""WebSockets: who may open one, and how much it may say."""

from __future__ import annotations

import signal

import pytest

pytest.importorskip("websockets", reason="the extra `lab` is not installed")
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

LIMIT = 64 << 10


def open_socket(server, **options) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/ws", open_timeout=60, proxy=None, **options)


def refusal(server, **options) -> InvalidStatus:
    with pytest.raises(InvalidStatus) as refused:
        open_socket(server, **options)
    return refused.value


@pytest.mark.parametrize("origin", ["null", "http://evil.example", "http://127.0.0.1", "https://127.0.0.1:{port}"])
def test_a_foreign_page_opens_none(server, origin: str) -> None:
    response = refusal(server, origin=origin.format(port=server.port)).response
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/json"
    assert "default-src 'self'" in response.headers["content-security-policy"]
    assert response.headers["x-request-id"]


def test_own_pages_and_scripts_open_one(server) -> None:
    for origin in (None, f"http://127.0.0.1:{server.port}"):
        with open_socket(server, origin=origin) as client:
            client.send("four")
            assert client.recv(timeout=60) == "4"


def test_a_foreign_host_opens_none(server) -> None:
    with server.connect() as client:
        client.sendall(
            b"GET /ws HTTP/1.1\r\nHost: evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_the_key_is_needed_where_there_is_one(locked) -> None:
    assert refusal(locked).response.status_code == 401
    shown = {"Authorization": "Bearer gehéim-5".encode().decode("latin-1")}
    assert refusal(locked, additional_headers={"Authorization": "Bearer x"}).response.status_code == 401
    with open_socket(locked, origin="null", additional_headers=shown) as client:
        client.send("four")
        assert client.recv(timeout=60) == "4"


def closing_code(client: ClientConnection, message) -> int:
    """Say something that is too much; the code with which the server hangs up."""

    def talk() -> None:
        client.send(message)
        client.recv(timeout=60)  # a reset connection would lose the code

    with pytest.raises(ConnectionClosed) as closed:
        talk()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_a_message_has_a_limit(server) -> None:
    with open_socket(server) as client:
        client.send("x" * LIMIT)
        assert client.recv(timeout=60) == str(LIMIT)
        assert closing_code(client, "x" * (LIMIT + 1)) == 1009
    with open_socket(server) as client:
        assert closing_code(client, "x" * (2 << 20)) == 1009


def test_a_message_in_pieces_has_the_same_limit(server) -> None:
    with open_socket(server) as client:
        assert closing_code(client, ("x" * 1024 for _ in range(2048))) == 1009


def test_nothing_is_compressed(server) -> None:
    with open_socket(server, compression="deflate") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


def test_the_access_log_knows_them(server) -> None:
    named = {"X-Request-ID": "socket"}
    refusal(server, origin="null", additional_headers=named)
    server.logged(lambda text: '"id": "socket"' in text)
    line = next(line for line in server.access() if line["id"] == "socket")
    assert (line["method"], line["path"], line["status"]) == ("WEBSOCKET", "/ws", 403)


def test_a_stopping_server_closes_them(serving) -> None:
    server = serving()
    with open_socket(server) as client:
        server.process.send_signal(signal.SIGTERM)
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1012
    assert server.process.wait(timeout=120) == 143
