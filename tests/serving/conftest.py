"""Real servers in processes of their own, on small models with random weights."""

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

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import model_files
from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer

for package in ("fastapi", "uvicorn", "httptools", "openai", "prometheus_client"):
    pytest.importorskip(package, reason="the extras `serve` and `dev` are not installed")
httpx: Any = pytest.importorskip("httpx")

torch.set_num_threads(1)
WORDS = ["hello there, how are you today?", "I am well, thank you. And you?", "the cat sat on the mat"] * 4
PATIENCE = 120.0  # seconds for what takes one on a machine that does nothing else


@dataclass
class Running:
    """A server, and what it has said."""

    process: subprocess.Popen[str]
    url: str
    log: Path
    client: Any = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.url, timeout=PATIENCE)

    def post(self, path: str, body: Any) -> Any:
        return self.client.post(path, json=body)

    def metrics(self) -> dict[str, float]:
        """The samples of /metrics by name and labels."""
        lines = self.client.get("/metrics").text.splitlines()
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}

    def until(self, true: Callable[[], bool]) -> None:
        """Wait for something to become true."""
        end = time.monotonic() + PATIENCE
        while not true():
            assert time.monotonic() < end, self.log.read_text()[-3000:]
            assert self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.02)

    def ready(self) -> bool:
        return self.client.get("/ready").status_code == 200

    def said(self) -> list[str]:
        """Lines on standard error that are not the access log's."""
        return [line for line in self.log.read_text().splitlines() if not line.startswith('{"time"')]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)


Serve = Callable[..., Running]
Save = Callable[..., Path]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Byte-level BPE with a few merges and the control tokens of conversations."""
    return train_bpe(WORDS, 300, (BOS, *CHAT_TOKENS))


@pytest.fixture(scope="session")
def save() -> Save:
    """Write the folder of a small model with random weights."""

    def write(folder: Path, tokenizer: Tokenizer, block_size: int = 128, seed: int = 3, **shape: Any) -> Path:
        sizes = {"n_layer": 1, "n_head": 2, "n_embd": 16, "init": "normal", **shape}
        model = GPT(ModelConfig(block_size=block_size, **sizes), tokenizer.vocab_size)
        model.init_weights(seed)
        write_folder(folder, model_files(model.eval(), tokenizer, {}), 0)
        return folder

    return write


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, save: Save) -> Path:
    """A chat model with a context of 128."""
    return save(tmp_path_factory.mktemp("models") / "talker", tokenizer)


@pytest.fixture(scope="session")
def tireless(tmp_path_factory: pytest.TempPathFactory, tokenizer: Tokenizer, save: Save) -> Path:
    """A chat model whose context takes seconds to fill."""
    return save(tmp_path_factory.mktemp("models") / "tireless", tokenizer, 16384, n_layer=2, n_embd=64)


@pytest.fixture(scope="session")
def speller(tmp_path_factory: pytest.TempPathFactory, save: Save) -> Path:
    """A model of plain text that knows a few characters."""
    return save(tmp_path_factory.mktemp("models") / "speller", CharTokenizer("abcdef \n"), 32, seed=5)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Start `microgpt serve`; the servers are gone at the end."""
    servers: list[Running] = []

    def start(*words: str | Path, env: dict[str, str] | None = None, wait: bool = True) -> Running:
        folder = tmp_path_factory.mktemp("server")
        with open(folder / "stderr.log", "w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "microgpt.cli", "serve", "--port", "0", "--device", "cpu", *map(str, words)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.fullmatch(r"microgpt listens on (http://127\.0\.0\.1:\d+)\n", line)
        if found is None:
            process.kill()
            process.wait()
        assert found, line + (folder / "stderr.log").read_text()
        running = Running(process, found[1], folder / "stderr.log")
        servers.append(running)
        if wait:
            running.until(running.ready)
        return running

    yield start
    for running in servers:
        running.client.close()
        running.process.kill()
        running.process.wait(timeout=PATIENCE)
        assert running.process.stdout is not None
        running.process.stdout.close()


@pytest.fixture(scope="session")
def server(serve: Serve, talker: Path) -> Running:
    """A server of one chat model."""
    return serve("--model-dir", talker)


@pytest.fixture(scope="session")
def several(serve: Serve, talker: Path, speller: Path, tireless: Path) -> Running:
    """A server of three models, four sequences at a time each."""
    models = [f"--model={path.name}={path}" for path in (speller, talker, tireless)]
    return serve(*models, "--slots", "4", "--max-queue", "20")
