"""Running a server from the moment its port is taken until the last answer has ended."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any, cast

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from microgpt import errors
from microgpt.errors import Stopped, UsageError
from microgpt.web.access import Observer, access_log, fault_log
from microgpt.web.connection import Connection
from microgpt.web.security import Security, secured

#: the largest WebSocket message, in bytes
FRAME_LIMIT = 64 << 10
#: why an address cannot be had, and what to do
UNBOUND = {
    errno.EADDRINUSE: ("is in use", "choose another port (0 takes a free one)"),
    errno.EACCES: ("is for the system's own services", "choose a port from 1024 up"),
    errno.EADDRNOTAVAIL: ("is no address of this machine", "listen on 127.0.0.1"),
}


def serve(
    app: ASGIApp,
    settings: Security,
    *,
    name: str = "microgpt",
    listening: Callable[[str], None] | None = None,
    draining: Callable[[], None] | None = None,
    observed: Observer | None = None,
) -> None:
    """Serve an app until SIGTERM or SIGINT; it is put behind the layers of `security.secured` here.

    Prints `<name> listens on http://HOST:PORT` on standard output when clients can connect, and the access log on
    standard error. On a signal no connection is taken any more, `draining` is called, and open answers get
    `settings.drain_s` seconds to end before they are cut. A second signal cuts them at once. After a signal the
    process ends, whatever its threads are doing. To be called from the main thread.

    Args:
        app: the ASGI app; what its lifespan raises at the start is raised here.
        settings: where to listen and whom to answer.
        name: the first word of the line that says where.
        listening: called with the server's address when clients can connect.
        draining: called once when the first signal has come.
        observed: called at the end of each request with its scope, status and seconds.

    Raises:
        UsageError: the address is taken or not of this machine, or open to the network without a key.
        Stopped: a signal ended the server; always, once it has listened.
    """
    guarded = Faults(secured(app, settings, observed))
    allow_open_files(settings.connections + 512)
    for log in (access_log, fault_log):
        to_standard_error(log)
    taken = take_port(settings)
    config = uvicorn.Config(
        guarded,
        http=cast(Any, partial(Connection, most=settings.connections)),
        interface="asgi3",
        log_config=None,
        log_level=logging.CRITICAL,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=8,
        timeout_graceful_shutdown=cast(int, settings.drain_s),  # uvicorn hands it to asyncio, which takes fractions
        ws=websocket_protocol(),
        ws_max_size=FRAME_LIMIT,
        ws_per_message_deflate=False,
    )
    url = address(settings.host, taken)

    def begin() -> None:
        print(f"{name} listens on {url}", flush=True)
        if listening:
            listening(url)

    listener = Listener(config, begin, settings.drain_s, draining)
    try:
        asyncio.run(listener.serve(sockets=[taken]))
    except SystemExit:  # uvicorn's way to say that the lifespan failed, whose exception it has only logged
        if guarded.fault is None:
            raise
        raise guarded.fault from None
    finally:
        taken.close()
    if guarded.fault:
        fault_log.error("%s did not end in order", name, exc_info=guarded.fault)
    if listener.stopped_by:
        raise Stopped(listener.stopped_by, f"{name} has ended its answers", "start it again with the same command")


class Listener(uvicorn.Server):
    """uvicorn's server with our signals, our word when it listens, and a look at every connection's deadline."""

    def __init__(
        self,
        config: uvicorn.Config,
        begin: Callable[[], None],
        drain_s: float,
        draining: Callable[[], None] | None,
    ) -> None:
        super().__init__(config)
        self.begin, self.drain_s, self.draining = begin, drain_s, draining
        self.stopped_by = ""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self.begin()

    async def on_tick(self, counter: int) -> bool:
        if counter % 5 == 0:  # uvicorn ticks ten times a second
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, Connection):
                    connection.check(now)
        return await super().on_tick(counter)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self.stop, number)
        yield  # the loop takes its handlers away as it closes

    def stop(self, number: signal.Signals) -> None:
        """End the open answers and stop; at once when asked for the second time."""
        again, self.stopped_by = bool(self.stopped_by), self.stopped_by or number.name
        # threads that still compute would keep the process; nothing that they make has a reader
        end_process(0.8 if again else self.drain_s + 1.0, self.stopped_by)
        self.should_exit, self.force_exit = True, again
        if again:  # from Python 3.12 on a listener is closed only when its connections are
            for connection in list(self.server_state.connections):
                connection.transport.abort()
        elif self.draining:
            self.draining()


class Faults:
    """Keeps the exception that ended the app's lifespan: uvicorn logs it and forgets it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.fault: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as fault:
            if scope["type"] == "lifespan":
                self.fault = fault
            raise


def websocket_protocol() -> Any:
    """The class that speaks WebSocket, or uvicorn's word for none where the package websockets is missing."""
    if find_spec("websockets") is None:
        return "none"
    from microgpt.web.websocket import Socket

    return Socket


def end_process(seconds: float, signal_name: str) -> None:
    """End this process with the signal's exit code if it still runs after some seconds."""
    code = errors.SIGINT if signal_name == "SIGINT" else errors.SIGTERM
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()


def take_port(settings: Security) -> socket.socket:
    """A socket bound to the settings' address, so that a port in use is known before any model is loaded.

    Raises:
        UsageError: the address is taken, not allowed, or not of this machine.
    """
    host, port = settings.host, settings.port
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} does not exist", "choose a port from 0 (any free one) to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        taken = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as fault:
        raise UsageError(f"there is no host {host} to listen on", "use 127.0.0.1") from fault
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(place)
    except OSError as fault:
        taken.close()
        what, mend = UNBOUND.get(fault.errno or 0, UNBOUND[errno.EADDRNOTAVAIL])
        raise UsageError(f"port {port} on {host} {what}", mend) from fault
    return taken


def address(host: str, taken: socket.socket) -> str:
    """The URL of a bound socket, with the port that it really got."""
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{taken.getsockname()[1]}"


def allow_open_files(count: int) -> None:
    """Raise this process's limit of open files, as far as the system lets it: every connection is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def to_standard_error(log: logging.Logger) -> None:
    """Write a log to standard error as it is, whatever the program around has done to the root logger."""
    if not log.handlers:
        log.addHandler(logging.StreamHandler(sys.stderr))
        log.setLevel(logging.INFO)
        log.propagate = False
