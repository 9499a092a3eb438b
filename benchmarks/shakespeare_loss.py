"""Runs on Shakespeare through the training command, and their loss on the whole validation text, window by window."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from common import data_file, scratch

from microgpt.checkpoints.folder import find
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.runs.folder import read_run

#: published by nanoGPT for its CPU recipe
PUBLISHED = 1.88


def trained(words: list[str], home: Path | None = None) -> tuple[Path, float]:
    """The run folder of a training command, and its seconds from the first batch to the end."""
    home = home or scratch()
    fixed = [f"data.path={data_file('tinyshakespeare.txt')}", "tracking=off", "hydra.run.dir=run"]
    command = [sys.executable, "-m", "microgpt.train", *words, *fixed, "sampling.max_new_tokens=16"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return home / "run", float(read_run(home / "run")["wall_seconds"])


def windows(text: str, block: int) -> Iterator[tuple[str, str]]:
    """The last tenth of a text, in windows side by side; each with its targets, one further on."""
    held = text[int(0.9 * len(text)) :]
    for start in range(0, (len(held) - 1) // block * block, block):
        yield held[start : start + block], held[start + 1 : start + block + 1]


def whole_loss(run: Path, checkpoint: str = "latest") -> tuple[float, int]:
    """Mean nats a character of a run's model, and its parameters; each window begins without context."""
    opened = open_model(find(run / "checkpoints", checkpoint))
    model = load_weights(opened)
    text = data_file("tinyshakespeare.txt").read_text()
    pairs = list(windows(text, opened.config.block_size))
    x = torch.tensor([opened.tokenizer.encode(a) for a, _ in pairs])
    y = torch.tensor([opened.tokenizer.encode(b) for _, b in pairs])
    with torch.no_grad():
        nats = sum(float(model.loss(a, b)) for a, b in zip(x.split(64), y.split(64)))
    return nats / y.numel(), model.parameter_count()


def nanogpt(steps: int, more: list[str] | None = None) -> dict[str, float]:
    """What the peer's loop says of itself."""
    script = str(Path(__file__).parent / "peers" / "nanogpt.py")
    command = [sys.executable, script, "--data", str(data_file("tinyshakespeare.txt")), "--steps", str(steps)]
    done = subprocess.run([*command, *(more or [])], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def reproduces(loss: float) -> None:
    """Hold the peer's loss against its published one.

    Raises:
        SystemExit: they differ by more than a hundredth, so no ratio counts.
    """
    if abs(loss / PUBLISHED - 1) > 0.01:
        raise SystemExit(f"the peer's loop has {loss:.4f} where {PUBLISHED} is published: no ratio counts")
