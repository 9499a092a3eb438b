"""Real lab servers in processes of their own, and small sessions without one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("fastapi", reason="the extra `lab` is not installed")
pytest.importorskip("uvicorn", reason="the extra `lab` is not installed")
pytest.importorskip("httptools", reason="the extra `lab` is not installed")
pytest.importorskip("websockets", reason="the extra `lab` is not installed")
pytest.importorskip("httpx", reason="the extra `dev` is not installed")
import httpx
from websockets.sync.client import ClientConnection, connect

from microgpt.lab.messages import Start
from microgpt.lab.recipe import Recipe, configured, prepared_recipe
from microgpt.lab.studio import Studio

torch.set_num_threads(1)
PATIENCE = 120.0  # seconds for what takes one on a machine that does nothing else


@dataclass
class Lab:
    """A server, and what it is asked."""

    process: subprocess.Popen[str]
    url: str
    folder: Path
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=f"{self.url}/api", timeout=PATIENCE)

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, json=body)

    def get(self, path: str) -> Any:
        return self.client.get(path)

    def start(self, **fields: Any) -> str:
        """The id of a fresh session."""
        answer = self.post("/session/start", **fields)
        assert answer.status_code == 200, answer.text
        return answer.json()["session_id"]

    def finish(self, session: str, **fields: Any) -> None:
        """Run to the end, or as far as told."""
        given = {"to_end": True, **fields} if "steps" not in fields else fields
        assert self.post(f"/session/{session}/run", delay_ms=0, **given).status_code == 200
        self.until(lambda: not self.get(f"/session/{session}").json()["running"])

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.said()
            assert self.process.poll() is None, self.said()
            time.sleep(0.02)

    def said(self) -> str:
        return (self.folder / "stderr.log").read_text()[-3000:]

    def clear(self) -> None:
        """Close all sessions: a server takes eight."""
        for session in self.get("/sessions").json()["sessions"]:
            self.client.delete(f"/session/{session['session_id']}")

    def socket(self, session: str, **options: Any) -> ClientConnection:
        address = f"{self.url.replace('http', 'ws')}/ws/{session}"
        return connect(address, open_timeout=PATIENCE, close_timeout=1, proxy=None, max_size=None, **options)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


Serve = Callable[..., Lab]


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start `microgpt lab`; the servers are gone at the end."""
    servers: list[Lab] = []

    def start(*words: str, folder: Path | None = None) -> Lab:
        folder = folder or tmp_path_factory.mktemp("lab")
        command = [sys.executable, "-m", "microgpt.cli", "lab", "--port", "0", "--no-browser"]
        with open(folder / "stderr.log", "w") as log:
            process = subprocess.Popen(
                [*command, "--tracking", "off", *words],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_TRACKING_URI": ""},
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"microgpt lab listens on (http://127\.0\.0\.1:\d+)\n", line)
        if found is None:
            process.kill()
            process.wait()
        assert found, line + (folder / "stderr.log").read_text()
        servers.append(Lab(process, found[1], folder))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()


@pytest.fixture(scope="module")
def server(serve: Serve) -> Lab:
    """One for all tests of a file."""
    return serve()


@pytest.fixture
def lab(server: Lab) -> Iterator[Lab]:
    """A server; its sessions are gone after the test."""
    yield server
    server.clear()


Make = Callable[..., Studio]


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """The recipe of a start request."""
    return lambda **fields: prepared_recipe(configured(Start(**fields)))


@pytest.fixture
def studio(tmp_path: Path, recipe: Callable[..., Recipe]) -> Make:
    """A session's inside, in this process."""

    def make(folder: str = "states", **fields: Any) -> Studio:
        return Studio(recipe(**{"num_steps": 60, **fields}), tmp_path / folder)

    return make


#: what a session with everything switched on looks like
LARGER: dict[str, Any] = {
    "model": "tiny", "n_embd": 32, "n_head": 4, "n_layer": 2, "block_size": 24, "batch_size": 3, "optimizer": "muon",
    "num_steps": 40,
    "settings": {"optimizer.weight_decay": 0.1, "model.n_kv_head": 2, "optimizer.grad_clip": 0.5},
}  # fmt: skip
