"""Real servers in processes of their own, and sockets that send what no well-behaved client would."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

for package in ("fastapi", "uvicorn", "httptools", "httpx"):
    pytest.importorskip(package, reason="the extra `serve` is not installed")

APP = Path(__file__).with_name("app.py")


@dataclass
class Running:
    """A server of `app.py`."""

    process: subprocess.Popen[str]
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=30)

    def raw(self, request: bytes) -> bytes:
        """All that the server says to these bytes until it closes the connection."""
        with self.connect() as client:
            client.sendall(request)
            said = b""
            while piece := client.recv(65536):
                said += piece
            return said

    def logged(self, true: Callable[[str], bool]) -> str:
        """The log, as soon as something is true of it: a line comes just after its answer."""
        until = time.monotonic() + 30
        while not true(text := self.log.read_text()):
            assert time.monotonic() < until, text
            time.sleep(0.05)
        return text

    def access(self) -> list[dict[str, object]]:
        """The lines of the access log."""
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]


Serving = Callable[..., Running]


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Start servers with settings of `Security`; they are gone after the module."""
    running: list[subprocess.Popen[str]] = []

    def start(**settings: object) -> Running:
        log = tmp_path_factory.mktemp("server") / "stderr.log"
        with open(log, "w") as file:
            process = subprocess.Popen(
                [sys.executable, str(APP), json.dumps({"port": 0, **settings})],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=dict(os.environ),
            )
        running.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"test listens on http://\S+:(\d+)\n", line)
        assert found, f"{line!r} {log.read_text()}"
        return Running(process, int(found[1]), log)

    yield start
    for process in running:
        process.kill()
        process.wait(timeout=120)
        assert process.stdout is not None
        process.stdout.close()


@pytest.fixture(scope="module")
def server(serving: Serving) -> Running:
    """An open server on loopback."""
    return serving(body_limit=1000, body_limits={"/microgpt/": 5000}, allowed_hosts=["gpt.example.org"])


@pytest.fixture(scope="module")
def locked(serving: Serving) -> Running:
    """A server with an API key."""
    return serving(api_key="gehéim-5")
