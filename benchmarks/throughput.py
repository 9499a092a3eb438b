"""Tokens a second of the whole training command against a bare compiled loop, nanoGPT's loop and HF's Trainer.

Every side trains one shape on equal rows until its time is up; its figure is the median step after the first quarter.
The command runs with its run folder and progress, tracking on, validation left to the end; what a peer cannot do (a
norm after the embedding, Muon) it does not do, so ours trains with AdamW here, and with Muon in a line of its own.
"""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from common import arguments, data_file, scratch

from microgpt.runs.folder import read_metrics

PEERS = Path(__file__).parent / "peers"
NANOGPT = "nanoGPT's loop, compiled"
#: layers, width, heads, block, vocabulary, rows
SHAPES = {
    "b": (2, 64, 4, 256, 4096, 8),
    "c": (4, 128, 4, 512, 4096, 8),
    "d": (4, 128, 4, 64, 65, 12),
    "e": (6, 256, 8, 1024, 4096, 4),
}
BARE = """
import json, sys, time
from microgpt.runtime import prepare_process, set_threads
prepare_process()
import torch
from microgpt.config.auto import resolved_shape
from microgpt.config.compose import compose
from microgpt.data.mixture import prepare_all
from microgpt.model.gpt import GPT
from microgpt.training.compiling import compiled_loss
from microgpt.training.optimizer import make_optimizer
words, limit = json.loads(sys.argv[1]), float(sys.argv[2])
config = resolved_shape(compose(words), 1)
set_threads(0)
prepared = prepare_all(config.data, config.tokenizer, None, False, config.model.block_size)
model = GPT(config.model, prepared.tokenizer.vocab_size)
model.init_weights(config.seed)
batches = prepared.train_batches(config.data, config.model.block_size, config.data.batch_size, config.seed)
optimizer = make_optimizer(model, config.optimizer)
loss_of = compiled_loss(model) if sys.argv[3] == "on" else model.loss
times, step, began = [], 0, None
while began is None or time.perf_counter() - began < limit:
    started = time.perf_counter()
    batch = batches.micro_batch(step)
    x, y, p = (torch.from_numpy(a) for a in (batch.inputs, batch.targets, batch.positions))
    s = None if batch.segments is None else torch.from_numpy(batch.segments)
    (loss_of(x, y, p, s) / batch.target_count).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    times.append(time.perf_counter() - started)
    began, step = began or time.perf_counter(), step + 1
kept = sorted(times[1 + len(times) // 4 :])
print(json.dumps({"tokens_per_s": x.numel() / kept[len(kept) // 2]}))
"""


def words_of(shape: tuple[int, ...]) -> list[str]:
    """The overrides that make our model of a shape; d reads characters, the others a trained vocabulary."""
    layers, width, heads, block, vocab, rows = shape
    hidden = round(8 * width / 3 / 32) * 32  # as many weights as four times the width without a gate
    text = ["tokenizer=char"] if vocab < 256 else ["tokenizer=bpe", f"tokenizer.vocab_size={vocab}"]
    return [
        "data=shakespeare", f"data.path={data_file('tinyshakespeare.txt')}", *text, "model=small",
        f"model.n_layer={layers}", f"model.n_embd={width}", f"model.n_head={heads}", f"model.block_size={block}",
        f"model.mlp_hidden={hidden}", f"data.batch_size={rows}",
    ]  # fmt: skip


def command(words: list[str], limit: float, compiled: str) -> float:
    """Median tokens a second of the training command, stopped after some seconds of steps."""
    home = scratch()
    fixed = ["trainer.max_steps=100000", "trainer.eval_batches=1", "hydra.run.dir=run"]
    fixed += ["trainer.checkpoint_interval=0", f"device.compile={compiled}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "microgpt.train", *words, *fixed], cwd=home, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    metrics = home / "run" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.05)
    time.sleep(limit)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    if process.returncode != 130:
        raise SystemExit(said[-2000:])
    speeds = [v for _, v in sorted(read_metrics(home / "run")["perf/tokens_per_s"].items())]
    return statistics.median(speeds[len(speeds) // 4 :])


def asked(script: list[str], limit: float) -> float:
    """Tokens a second as a script says."""
    done = subprocess.run(
        [sys.executable, *script], capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"},
        timeout=limit * 10 + 300,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    return float(json.loads(done.stdout.splitlines()[-1])["tokens_per_s"])


def sides(shape: tuple[int, ...], limit: float, compiled: str) -> dict[str, Callable[[], float]]:
    """What is measured at a shape, by name."""
    words = words_of(shape)
    plain = [*words, "optimizer=adamw"]
    sizes = [f"--{n}={v}" for n, v in zip(("layers", "width", "heads", "block", "vocab", "rows"), shape)]
    until = [*sizes, f"--stop-after={limit}", "--steps=100000"]
    text = str(data_file("tinyshakespeare.txt"))
    compile = ["--compile"] if compiled == "on" else []
    return {
        "muon": lambda: command(words, limit, compiled),
        "ours": lambda: command(plain, limit, compiled),
        "bare": lambda: asked(["-c", BARE, json.dumps(plain), str(limit), compiled], limit),
        NANOGPT: lambda: asked([str(PEERS / "nanogpt.py"), "--data", text, "--no-loss", *compile, *until], limit),
        "HF Trainer": lambda: asked([str(PEERS / "hf_trainer.py"), *until], limit),
    }


def main() -> None:
    given = arguments(__doc__ or "", 2)
    limit, compiled = (1.0, "off") if given.smoke else (12.0, "on")
    for name, shape in list(SHAPES.items())[: 1 if given.smoke else None]:
        found: dict[str, list[float]] = defaultdict(list)
        for turn in range(given.rounds):
            for side, measure in sides(shape, limit, compiled).items():
                found[side].append(measure())
            said = ", ".join(f"{side} {values[-1]:,.0f}" for side, values in found.items())
            print(f"{name}, round {turn + 1}: {said} tokens/s", file=sys.stderr, flush=True)
        goals = {"bare": 0.95, NANOGPT: 1.2 if name == "d" else 1.5, "HF Trainer": 1.5}
        lines = [("ours", side, f"at least {goal}") for side, goal in goals.items()]
        for ours, side, goal in [*lines, ("muon", "ours", "")]:
            ratios = [a / b for a, b in zip(found[ours], found[side])]
            what = f"the training command over {side}" if ours == "ours" else "Muon over AdamW"
            result = {
                "name": f"tokens a second at {name}: {what}",
                "ours": round(statistics.median(found[ours]), 1),
                "other": round(statistics.median(found[side]), 1),
                "unit": "tokens/s",
                "ratio": round(statistics.median(ratios), 4),
                "ratios": [round(r, 4) for r in ratios],
                "goal": goal,
            }
            print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
