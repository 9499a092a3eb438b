"""Many at once over HTTP (I2): tokens a second and time to the first, against llama.cpp's and transformers' servers.

Each server runs in its own process on the same weights, the load comes from another one, and servers take turns.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from common import arguments
from random_models import gguf_of, random_model

from microgpt.checkpoints.model import ModelFolder
from microgpt.export.huggingface import write_huggingface

HERE = Path(__file__).parent
LLAMA = """
import sys, time, xllamacpp
p = xllamacpp.CommonParams()
p.model.path, p.port, p.n_parallel, p.verbosity = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), -1
p.n_ctx = int(sys.argv[4]) * p.n_parallel
server = xllamacpp.Server(p)
time.sleep(10**6)
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


@contextmanager
def serving(command: list[str], port: int) -> Any:
    """A server process that answers."""
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    try:
        deadline = time.monotonic() + 120
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{command[:4]} did not come up")
            try:
                path = "ready" if "microgpt.cli" in command else "health"
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
                    if answer.status == 200:
                        break
            except OSError:
                time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


def load(port: int, model: str, streams: int, tokens: int) -> dict[str, float]:
    words = [sys.executable, str(HERE / "load_client.py"), str(port), model, str(streams), str(tokens)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600)
    if done.returncode:
        raise SystemExit(done.stderr[-500:])
    return json.loads(done.stdout)


def servers(folder: ModelFolder, smoke: bool) -> dict[str, tuple[list[str], int, str]]:
    """Name to (command, port, model name)."""
    ours, python = free_port(), sys.executable
    found = {
        "microgpt": (
            [python, "-m", "microgpt.cli", "serve", "--model", f"bench={folder.path}", "--port", str(ours)],
            ours,
            "bench",
        )
    }
    for dtype, slots in (("q8_0", 32),) if smoke else (("q8_0", 32), ("q8_0", 8), ("f32", 32)):
        port = free_port()
        words = [
            python,
            "-c",
            LLAMA,
            str(gguf_of(folder, dtype)),
            str(port),
            str(slots),
            str(folder.config.block_size),
        ]
        found[f"llama.cpp {dtype}, {slots} slots"] = (words, port, "bench")
    if not smoke:
        target = folder.path.parent / "hf"
        target.mkdir()
        write_huggingface(folder, target, "f32")
        port = free_port()
        words = [str(Path(python).parent / "transformers"), "serve", str(target), "--continuous-batching"]
        found["transformers serve"] = ([*words, "--device", "cpu", "--port", str(port)], port, str(target))
    return found


def main() -> None:
    given = arguments(__doc__ or "", 3)
    for preset in ("tiny",) if given.smoke else ("small", "medium", "large"):
        measure(preset, given.rounds, given.smoke)


def measure(preset: str, rounds: int, smoke: bool) -> None:
    """One model on every server."""
    folder = random_model(preset)
    tokens = 16 if smoke else 128
    sizes = (2,) if smoke else (1, 8, 32)
    figures: dict[tuple[str, int], list[dict[str, float]]] = {}
    with ExitStack() as stack:
        running = servers(folder, smoke)
        for name, (command, port, _) in running.items():
            stack.enter_context(serving(command, port))
            print(f"{preset}: {name} is up", file=sys.stderr, flush=True)
        for _, port, model in running.values():
            load(port, model, sizes[-1], tokens)  # all warm, memory for every stream too
        for _ in range(rounds):
            for streams in sizes:
                for name, (_, port, model) in running.items():
                    one = load(port, model, streams, tokens)
                    figures.setdefault((name, streams), []).append(one)
                    print(f"{preset} x{streams} {name}: {one}", file=sys.stderr, flush=True)
    for streams in sizes:
        mine = figures["microgpt", streams]
        for name in running:
            if name == "microgpt":
                continue
            other = figures[name, streams]
            goal = "" if streams < 32 else "at least 3 (I2)" if "transformers" in name else "at least 1.5 (I2)"
            report(
                f"{streams} streams, {preset}: microgpt over {name}", mine, other, "tokens_per_s", "tokens/s", goal
            )
            report(f"first token, {streams} streams, {preset}: microgpt over {name}", mine, other, "first_s", "s", "")


def report(
    name: str, mine: list[dict[str, float]], other: list[dict[str, float]], key: str, unit: str, goal: str
) -> None:
    """One JSON line."""
    ratios = [a[key] / max(b[key], 1e-9) for a, b in zip(mine, other)]
    line = {
        "name": name,
        "ours": round(statistics.median(a[key] for a in mine), 5),
        "other": round(statistics.median(b[key] for b in other), 5),
        "unit": unit,
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(r, 4) for r in ratios],
        "goal": goal if "f32" not in name else "",
    }
    print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
