"""Who may ask: Host, Origin and API key, and what every answer carries."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from microgpt.errors import UsageError
from microgpt.web.security import Security

APP = Path(__file__).with_name("app.py")
KEY = "gehéim-5".encode()


def status(said: bytes) -> int:
    assert said.startswith(b"HTTP/1.1 "), said[:200]
    return int(said[9:12])


def get(server, *headers: bytes, path: bytes = b"/health") -> bytes:
    return server.raw(
        b"GET %s HTTP/1.1\r\nConnection: close\r\n" % path + b"".join(h + b"\r\n" for h in headers) + b"\r\n"
    )


def post(server, *headers: bytes, path: bytes = b"/echo", host: bytes = b"localhost") -> bytes:
    lines = b"".join(line + b"\r\n" for line in headers)
    body = b"Host: %s\r\nConnection: close\r\nContent-Length: 2\r\n%s\r\n{}" % (host, lines)
    return server.raw(b"POST %s HTTP/1.1\r\n" % path + body)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "LocalHost:80",
        "[::1]:9",
        "127.0.0.1:65535",
        "gpt.example.org",
        "GPT.example.org:443",
    ],
)
def test_own_hosts_are_answered(server, host: str) -> None:
    assert status(get(server, b"Host: " + host.encode())) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "localhost.evil.example", "evil.example:80@localhost", "localhost:80:80", "localhost:x", "",
        "10.0.0.1", "[::2]", "::1", "127.0.0.1\t.evil", "\xff\xfe", "localhost/..", "0x7f000001", "null",
    ],
)  # fmt: skip
def test_foreign_hosts_are_refused(server, host: str) -> None:
    said = get(server, b"Host: " + host.encode("latin-1"), path=b"/echo")
    assert status(said) == 400
    assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]


def test_host_is_given_once(server) -> None:
    assert status(get(server)) == 400
    assert status(get(server, b"Host: localhost", b"Host: evil.example")) == 400


def test_a_server_that_listens_everywhere_trusts_addresses_but_no_names() -> None:
    wide = Security(host="0.0.0.0", api_key="k", allowed_hosts=("box.lan",))
    assert all(wide.trusts(name) for name in ("192.168.0.7", "[fe80::1]", "localhost", "box.lan"))
    assert not wide.trusts("rebound.example")
    assert not Security().trusts("192.168.0.7")


OWN = b"Origin: http://localhost:8080"


@pytest.mark.parametrize(
    "host, origin, code",
    [
        (b"localhost:8080", b"http://localhost:8080", 200),
        (b"localhost:8080", b"HTTP://LOCALHOST:8080", 200),
        (b"localhost", b"http://localhost:80", 200),
        (b"localhost:8080", b"http://localhost:8081", 403),
        (b"localhost:8080", b"http://127.0.0.1:8080", 403),
        (b"localhost:8080", b"https://localhost:8080", 403),
        (b"localhost:8080", b"http://localhost:8080.evil.example", 403),
        (b"localhost:8080", b"http://evil.example", 403),
        (b"localhost:8080", b"null", 403),
        (b"localhost:8080", b"", 403),
        (b"localhost:8080", b"file://", 403),
        (b"localhost:8080", b"\xff", 403),
    ],
)
def test_only_own_pages_may_write(server, host: bytes, origin: bytes, code: int) -> None:
    said = post(server, b"Origin: " + origin, host=host)
    assert status(said) == code
    assert b"access-control" not in said.lower()


def test_scripts_without_an_origin_may_write_and_foreign_pages_may_only_read(server) -> None:
    assert status(post(server)) == 200
    assert status(get(server, b"Host: localhost", b"Origin: http://evil.example")) == 200
    assert status(post(server, OWN, b"Origin: http://evil.example", host=b"localhost:8080")) == 403
    preflight = (
        b"OPTIONS /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: http://evil.example\r\n\r\n"
    )
    said = server.raw(preflight)
    assert status(said) == 403
    assert b"access-control" not in said.lower()


def test_an_origin_behind_a_proxy_can_be_allowed() -> None:
    proxied = Security(allowed_origins=("https://gpt.example.org",))
    scope = {"scheme": "http", "headers": [(b"origin", b"https://gpt.example.org:443")]}
    assert proxied.own_origin(scope, "gpt.example.org")
    assert not Security().own_origin(scope, "gpt.example.org")


@pytest.mark.parametrize(
    "value, code",
    [
        (b"Bearer " + KEY, 200),
        (b"bearer  " + KEY, 200),
        (KEY, 401),
        (b"Basic " + KEY, 401),
        (b"Bearer", 401),
        (b"Bearer ", 401),
        (b"Bearer " + KEY + b"x", 401),
        (b"Bearer " + KEY[:-1], 401),
        (b"Bearer " + "gehéim-5".encode("latin-1"), 401),
        (b"Bearer \xff\xfe\x80", 401),
    ],
)
def test_the_key_decides(locked, value: bytes, code: int) -> None:
    said = post(locked, b"Authorization: " + value, path=b"/v1/echo")
    assert status(said) == code
    if code == 401:
        assert b"www-authenticate: bearer" in said.lower()
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"]["code"] == "invalid_api_key"


def test_without_a_key_only_the_page_and_the_health_are_open(locked) -> None:
    with httpx.Client(base_url=locked.url) as client:
        assert client.get("/").status_code == client.get("/health").status_code == 200
        assert client.get("/static/none.js").status_code == 404  # past the gate; this app has no such file
        for path in ("/echo", "/v1/models", "/healthy", "/static", "/docs", f"/echo?key={KEY.decode()}"):
            assert client.get(path).status_code == 401, path
        assert client.post("/").status_code == client.post("/static/none.js").status_code == 401


def test_a_foreign_page_with_the_key_may_write(locked) -> None:
    assert status(post(locked, b"Origin: null", b"Authorization: Bearer " + KEY)) == 200
    assert status(post(locked, b"Origin: null")) == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org"])
@pytest.mark.parametrize("key", [None, ""])
def test_the_network_is_not_let_in_without_a_key(host: str, key: str | None) -> None:
    with pytest.raises(UsageError):
        Security(host=host, api_key=key).require_key()
    Security(host=host, api_key="k").require_key()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    Security(host=host).require_key()


def test_a_server_open_to_the_network_does_not_start() -> None:
    command = [sys.executable, str(APP), '{"host": "0.0.0.0", "port": 0}']
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "API key" in done.stderr


def test_every_answer_carries_the_security_headers(server) -> None:
    answers = [
        get(server, b"Host: localhost"),
        get(server, b"Host: localhost", path=b"/none"),
        get(server, b"Host: evil.example"),
        get(server, b"Host: localhost", path=b"/fault"),
        post(server, b"Origin: null"),
        server.raw(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 2000\r\n\r\n"),
        server.raw(b"this is no HTTP\r\n\r\n"),
    ]
    assert [status(said) for said in answers] == [200, 404, 400, 500, 403, 413, 400]
    for said in answers:
        head = said.partition(b"\r\n\r\n")[0].lower()
        assert b"content-security-policy: default-src 'self'; " in head
        for part in (b"frame-ancestors 'none'", b"base-uri 'none'", b"form-action 'none'"):
            assert part in head
        assert b"x-content-type-options: nosniff" in head
        assert b"referrer-policy: no-referrer" in head
        assert b"cache-control: no-store" in head
        assert b"\r\nserver:" not in head


def test_an_app_may_set_a_header_itself(server) -> None:
    said = get(server, b"Host: localhost", path=b"/echo").lower()
    assert said.count(b"cache-control") == 1
    assert b"cache-control: max-age=60" in said


@pytest.mark.parametrize(
    "sent, kept", [("a.B_c-9", True), ("x" * 64, True), ("x" * 65, False), ("a b", False), ("é", False)]
)
def test_a_request_has_a_name(server, sent: str, kept: bool) -> None:
    answer = httpx.post(server.url + "/echo", headers={"x-request-id": sent.encode()})
    name = answer.headers["x-request-id"]
    assert (name == sent) == kept
    assert answer.json()["id"] == name
    assert len(name) in (32, len(sent))


def test_an_unexpected_fault_shows_nothing_of_the_inside(server) -> None:
    answer = httpx.get(server.url + "/fault")
    assert answer.status_code == 500
    assert not any(word in answer.text for word in ("secret", "passwd", "RuntimeError", "Traceback", "0x"))
    server.logged(lambda text: "RuntimeError: secret" in text)


def test_a_fault_in_the_middle_of_an_answer_cuts_the_connection(server) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(server.url + "/late-fault")
    assert httpx.get(server.url + "/health").status_code == 200


def test_the_longest_prefix_sets_the_limit() -> None:
    limits = Security(body_limit=3, body_limits={"/a/": 2, "/a/b/": 1})
    assert [limits.limit(path) for path in ("/", "/a", "/a/", "/a/b", "/a/b/c")] == [3, 3, 2, 2, 1]


def test_the_access_log_has_one_harmless_line_a_request(server) -> None:
    before = len(server.access())
    httpx.get(server.url + "/none%1b%5b31m%0d%0a%7f%c2%9b?key=sesame", headers={"Authorization": "Bearer sesame"})
    httpx.post(server.url + "/v1/echo", content=b"12", headers={"X-Request-ID": "mine"})
    server.logged(lambda text: '"id": "mine"' in text)
    first, second = server.access()[before:]
    assert first["path"] == "/none\x1b[31m\r\n\x7f\x9b"
    assert {name: second[name] for name in ("id", "method", "path", "status", "client")} == {
        "id": "mine",
        "method": "POST",
        "path": "/v1/echo",
        "status": 200,
        "client": "127.0.0.1",
    }
    assert second["bytes"] > 0
    text = server.log.read_text()
    assert "sesame" not in text
    assert not any(not c.isprintable() for c in text.replace("\n", ""))


ODD = [b"localhost", b"null", b"Bearer", b"Bearer \xff", b"[::1", b"http://", b"http://[::1]:x", b"://", b"a" * 9000]
VALUES = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.sampled_from(ODD),
).map(lambda raw: raw.replace(b"\r", b"").replace(b"\n", b""))
NAMES = [b"Host", b"Origin", b"Authorization", b"X-Request-ID", b"Content-Length", b"Transfer-Encoding"]


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(NAMES),
    value=VALUES.filter(lambda value: not value.strip().isdigit()),  # a body that is promised is waited for
    method=st.sampled_from([b"GET", b"POST", b"PUT", b"OPTIONS", b"HEAD"]),
)
def test_no_header_makes_the_server_fail(server, locked, name: bytes, value: bytes, method: bytes) -> None:
    host = b"" if name == b"Host" else b"Host: localhost\r\n"
    request = b"%s /v1/none HTTP/1.1\r\n%sConnection: close\r\n%s: %s\r\n\r\n" % (method, host, name, value)
    for asked in (server, locked):
        with asked.connect() as client:
            client.sendall(request)
            assert 400 <= status(client.recv(65536)) < 500
