"""Tokens a second of the whole training command against a bare compiled loop, nanoGPT's loop and HF's Trainer.

Every side trains one shape on equal rows, in turns of a second or a few steps; its figure for a turn is the median
step. The command runs with its run folder and progress, tracking on, validation left to the end; what a peer cannot
do (a norm after the embedding, Muon) it does not do, so ours trains with AdamW here, and with Muon in a line of its
own. Where the CPU multiplies bf16, ours and the bare loop do, as is the default there; the peers compute in f32, as
theirs is, and so does a line of ours.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import defaultdict
from pathlib import Path

from common import arguments, data_file, scratch
from turns import Held

from microgpt.runs.folder import METRICS, read_lines

PEERS = Path(__file__).parent / "peers"
NANOGPT = "nanoGPT's loop, compiled"
#: layers, width, heads, block, vocabulary, rows
SHAPES = {
    "b": (2, 64, 4, 256, 4096, 8),
    "c": (4, 128, 4, 512, 4096, 8),
    "d": (4, 128, 4, 64, 65, 12),
    "e": (6, 256, 8, 1024, 4096, 4),
}
WHAT = {"ours": "the training command", "f32": "the training command in f32", "muon": "Muon"}
BARE = """
import json, sys, time
from microgpt.runtime import choose_precision, prepare_process, set_threads
prepare_process()
import torch
from microgpt.config.auto import resolved_shape
from microgpt.config.compose import compose
from microgpt.data.mixture import prepare_all
from microgpt.model.gpt import GPT
from microgpt.training.compiling import compiled_loss
from microgpt.training.optimizer import make_optimizer
config = resolved_shape(compose(json.loads(sys.argv[1])), 1)
set_threads(0)
prepared = prepare_all(config.data, config.tokenizer, None, False, config.model.block_size)
model = GPT(config.model, prepared.tokenizer.vocab_size)
model.init_weights(config.seed)
batches = prepared.train_batches(config.data, config.model.block_size, config.data.batch_size, config.seed)
optimizer = make_optimizer(model, config.optimizer)
loss_of = compiled_loss(model, "cpu") if sys.argv[2] == "on" else model.loss
low = torch.autocast("cpu", torch.bfloat16, choose_precision("auto", "cpu", sys.argv[2] == "on") == "bf16")
times, step = open("times", "w", buffering=1), 0
while True:
    started = time.perf_counter()
    batch = batches.micro_batch(step)
    x, y, p = (torch.from_numpy(a) for a in (batch.inputs, batch.targets, batch.positions))
    s = None if batch.segments is None else torch.from_numpy(batch.segments)
    with low:
        loss = loss_of(x, y, p, s) / batch.target_count
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    print(time.perf_counter() - started, file=times)
    step += 1
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


class Side:
    """One side of the comparison at a shape.

    Args:
        words: of its command, which makes `times` (seconds of each step) or a run folder.
        tokens: of a step.
    """

    def __init__(self, words: list[str], tokens: int) -> None:
        self._held = Held(words, scratch())
        self._tokens, self._known = tokens, 0
        self.end = self._held.end
        self._held.until(lambda: len(self._speeds()) > 1, 400)  # compiled, and its first steps made

    def _speeds(self) -> list[float]:
        """Tokens a second so far; of a step each, or of half a second where the command says it."""
        run, times = self._held.home / "run", self._held.home / "times"
        if times.exists():
            return [self._tokens / float(line) for line in times.read_text().splitlines()]
        said = [line["metrics"] for _, line in read_lines(run / METRICS)] if (run / METRICS).exists() else []
        return [line["perf/tokens_per_s"] for line in said if "perf/tokens_per_s" in line]

    def turn(self, seconds: float) -> float:
        """Median tokens a second of a turn of so many seconds, and of two steps that lie within it at the least."""
        known, until = len(self._speeds()), time.perf_counter() + seconds
        self._held.until(lambda: time.perf_counter() > until and len(self._speeds()) > known + 2, seconds + 200)
        return statistics.median(self._speeds()[known + 1 :])  # the first was begun in the turn before


def sides(shape: tuple[int, ...], compiled: str, smoke: bool = False) -> dict[str, Side]:
    """What is measured at a shape, by name; a smoke run starts each program once."""
    words, tokens = words_of(shape), shape[3] * shape[5]
    plain = [*words, "optimizer=adamw"]
    fixed = ["trainer.max_steps=100000", "trainer.eval_batches=1", "hydra.run.dir=run"]
    fixed += ["trainer.checkpoint_interval=0", f"device.compile={compiled}"]
    sizes = [f"--{n}={v}" for n, v in zip(("layers", "width", "heads", "block", "vocab", "rows"), shape)]
    peer = [*sizes, "--steps=100000", "--times=times"]
    nanogpt = ["--data", str(data_file("tinyshakespeare.txt")), "--no-loss", *(["--compile"] * (compiled == "on"))]
    commands = {
        "muon": ["-m", "microgpt.train", *words, *fixed],
        "ours": ["-m", "microgpt.train", *plain, *fixed],
        "f32": ["-m", "microgpt.train", *plain, *fixed, "device.precision=f32"],
        "bare": ["-c", BARE, json.dumps(plain), compiled],
        NANOGPT: [str(PEERS / "nanogpt.py"), *nanogpt, *peer],
        "HF Trainer": [str(PEERS / "hf_trainer.py"), *peer],
    }
    if smoke:
        del commands["muon"], commands["f32"]
    return {name: Side(command, tokens) for name, command in commands.items()}


def main() -> None:
    given = arguments(__doc__ or "", 5)
    limit, compiled = (0.1, "off") if given.smoke else (1.2, "on")  # a machine may change its speed within seconds
    for name, shape in list(SHAPES.items())[: 1 if given.smoke else None]:
        found: dict[str, list[float]] = defaultdict(list)
        all_sides = sides(shape, compiled, given.smoke)
        for turn in range(given.rounds):
            for side, measured in all_sides.items():
                found[side].append(measured.turn(limit))
            said = ", ".join(f"{side} {values[-1]:,.0f}" for side, values in found.items())
            print(f"{name}, round {turn + 1}: {said} tokens/s", file=sys.stderr, flush=True)
        for measured in all_sides.values():
            measured.end()
        goals = {"bare": 0.95, NANOGPT: 1.2 if name == "d" else 1.5, "HF Trainer": 1.5}
        lines = [("ours", side, f"at least {goal}") for side, goal in goals.items()]
        lines += [("f32", NANOGPT, ""), ("f32", "HF Trainer", ""), ("muon", "ours", "")]
        for ours, side, goal in lines[: len(goals) if given.smoke else None]:
            ratios = [a / b for a, b in zip(found[ours], found[side])]
            what = f"{WHAT[ours]} over {'AdamW' if ours == 'muon' else side}"
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
