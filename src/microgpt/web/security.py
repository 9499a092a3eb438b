"""Who may ask: trusted Host names, own Origins, the API key; and all layers of both servers put together."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from starlette.types import ASGIApp, Receive, Scope, Send

from microgpt.errors import UsageError
from microgpt.web.access import Access, Observer
from microgpt.web.errors import refuse
from microgpt.web.limits import Body, Linger, Load, header

HOST = re.compile(r"(\[[0-9a-f:.]{2,45}\]|[a-z0-9._-]{1,253})(?::([0-9]{1,5}))?")
DEFAULT_PORTS = {"http": "80", "https": "443"}
READING = {"GET", "HEAD"}


@dataclass(frozen=True)
class Security:
    """Where a server listens, whom it answers, and how much of one request it takes.

    Attributes:
        host: the address to listen on.
        port: the port; 0 takes a free one.
        api_key: what clients must show as `Authorization: Bearer <key>`; none on loopback leaves the server open to
            the machine's own users.
        allowed_hosts: further names that the Host header may have, without port.
        allowed_origins: further origins that may write, such as `https://gpt.example.org` for a proxy with TLS.
        body_limit: bytes of a request's body.
        body_limits: other limits for paths with a prefix; the longest prefix counts.
        concurrency: requests in progress at once.
        connections: open connections.
        answer_s: seconds from the end of the request until its answer must begin.
        drain_s: seconds that open answers get to end after a signal.
        open_paths: GET and HEAD need no key here and are not counted as load; an entry that ends in `/` holds for
            everything below it, `/` itself only for the page.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    api_key: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    body_limit: int = 1 << 20
    body_limits: Mapping[str, int] = field(default_factory=dict[str, int])
    concurrency: int = 64
    connections: int = 1000
    answer_s: float = 120.0
    drain_s: float = 8.0
    open_paths: tuple[str, ...] = ("/", "/health", "/ready", "/favicon.ico", "/static/")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        address = ip(self.host)
        return self.host == "localhost" if address is None else address.is_loopback

    def require_key(self) -> None:
        """Refuse to listen to the network without a key.

        Raises:
            UsageError: the host is not a loopback address and there is no API key.
        """
        if not self.loopback and not self.api_key:
            raise UsageError(
                f"host {self.host} can be reached from other machines, and there is no API key",
                "set an API key, or listen on 127.0.0.1",
            )

    def limit(self, path: str) -> int:
        """Bytes that the body of a request to this path may have."""
        fitting = [prefix for prefix in self.body_limits if path.startswith(prefix)]
        return self.body_limits[max(fitting, key=len)] if fitting else self.body_limit

    def is_open(self, scope: Scope) -> bool:
        """Whether this request needs no key and does not count as load."""
        path = scope["path"]
        below = any(path.startswith(entry) for entry in self.open_paths if entry.endswith("/") and entry != "/")
        return scope.get("method") in READING and (path in self.open_paths or below)

    def trusts(self, name: str) -> bool:
        """Whether the Host header may have this name (in small letters, without port)."""
        own = {"127.0.0.1", "localhost", "[::1]", self.host.lower(), f"[{self.host.lower()}]"}
        if name in own or name in {host.lower() for host in self.allowed_hosts}:
            return True
        address = ip(self.host)
        # listening everywhere: a page that rebinds DNS has a name, never an address, in its Host header
        return address is not None and address.is_unspecified and ip(name.strip("[]")) is not None

    def shows_key(self, scope: Scope) -> bool:
        """Whether the request shows the API key, compared in constant time."""
        scheme, _, given = b"".join(header(scope, b"authorization")[:1]).partition(b" ")
        if not self.api_key or scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(given.strip(), self.api_key.encode("utf-8", "surrogateescape"))

    def own_origin(self, scope: Scope, host: str) -> bool:
        """Whether the request comes from this server's own pages, or from no page at all, as curl's does.

        Without an Origin the key alone decides: off loopback there always is one.
        """
        origins = [value.decode("latin-1").lower() for value in header(scope, b"origin")]
        if not origins:
            return True
        trusted = {normal(f"http://{host}"), *(normal(origin.lower()) for origin in self.allowed_origins)}
        return len(origins) == 1 and normal(origins[0]) in trusted


def ip(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a text spells, or none."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def normal(origin: str) -> str:
    """An origin with its port always spelled out; text that is none becomes itself."""
    scheme, separator, rest = origin.partition("://")
    match = HOST.fullmatch(rest)
    if not separator or match is None:
        return origin
    return f"{scheme}://{match[1]}:{match[2] or DEFAULT_PORTS.get(scheme, '')}"


class Gate:
    """Answers 400 to a foreign Host, 403 to a foreign page that wants to write, 401 where the key is missing."""

    def __init__(self, app: ASGIApp, settings: Security) -> None:
        self.app, self.settings = app, settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        hosts = [value.decode("latin-1").lower() for value in header(scope, b"host")]
        match = HOST.fullmatch(hosts[0]) if len(hosts) == 1 else None
        writing = scope["type"] == "websocket" or scope["method"] not in READING
        keyed = self.settings.shows_key(scope)
        if match is None or not self.settings.trusts(match[1]):
            message = "the Host header names no host of this server; add the name to the allowed hosts"
            await refuse(scope, send, 400, message, code="untrusted_host")
        elif writing and not keyed and not self.settings.own_origin(scope, hosts[0]):
            message = "pages of another origin may not write here without the API key"
            await refuse(scope, send, 403, message, code="foreign_origin")
        elif self.settings.api_key and not keyed and not self.settings.is_open(scope):
            message = "the API key is missing or wrong; send it as Authorization: Bearer KEY"
            headers = {"www-authenticate": "Bearer"}
            await refuse(scope, send, 401, message, code="invalid_api_key", headers=headers)
        else:
            await self.app(scope, receive, send)


def secured(app: ASGIApp, settings: Security, observed: Observer | None = None) -> ASGIApp:
    """The app behind every layer; `server.serve` does this itself.

    Raises:
        UsageError: the settings would let the network in without a key.
    """
    settings.require_key()
    limited = Load(app, settings.concurrency, settings.answer_s, settings.is_open)
    return Access(Linger(Gate(Body(limited, settings.limit), settings)), observed)
