"""Runs on Shakespeare through the training command, and their loss on the whole validation text, window by window."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from common import data_file, scratch

from microgpt.checkpoints.folder import find
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.runs.folder import read_run

#: published by nanoGPT for its CPU recipe
PUBLISHED = 1.88
#: validation losses that nanoGPT's own program prints for it, by step
MEASURED = {"250": 2.445, "500": 2.314, "1000": 2.053, "1500": 1.923, "2000": 1.8857}


def trained(words: list[str], home: Path | None = None) -> tuple[Path, float]:
    """The run folder of a training command, and its seconds from the first batch to the end."""
    home = home or scratch()
    fixed = [
        f"data.path={data_file('tinyshakespeare.txt')}",
        "tracking=off",
        "hydra.run.dir=run",
        "sampling.num_samples=1",
    ]
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


def whole_loss(run: Path, checkpoint: str = "latest", smoke: bool = False) -> tuple[float, int]:
    """Mean nats a character of a run's model, and its parameters; each window begins without context.

    A smoke run reads the first few windows.
    """
    opened = open_model(find(run / "checkpoints", checkpoint))
    model = load_weights(opened)
    text = data_file("tinyshakespeare.txt").read_text()
    pairs = list(islice(windows(text, opened.config.block_size), 8 if smoke else None))
    x = torch.tensor([opened.tokenizer.encode(a) for a, _ in pairs])
    y = torch.tensor([opened.tokenizer.encode(b) for _, b in pairs])
    with torch.no_grad():
        nats = sum(float(model.loss(a, b)) for a, b in zip(x.split(64), y.split(64)))
    return nats / y.numel(), model.parameter_count()


def nanogpt(steps: int, more: list[str] | None = None) -> dict[str, Any]:
    """What the peer's loop says of itself."""
    script = str(Path(__file__).parent / "peers" / "nanogpt.py")
    command = [sys.executable, script, "--data", str(data_file("tinyshakespeare.txt")), "--steps", str(steps)]
    done = subprocess.run([*command, *(more or [])], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def reproduces(estimates: dict[str, float]) -> float:
    """Hold the peer's estimates against those of nanoGPT itself, step by step.

    One estimate is of 20 random batches and off by a hundredth either way, so the mean of all is what counts.

    Returns:
        The mean ratio of the peer's estimates to nanoGPT's, less 1.

    Raises:
        SystemExit: they differ by more than a hundredth, so no ratio counts.
    """
    off = sum(estimates[step] / value for step, value in MEASURED.items()) / len(MEASURED) - 1
    if abs(off) > 0.01:
        raise SystemExit(f"the peer's losses are off by {off:+.1%} from nanoGPT's: no ratio counts ({estimates})")
    return off
