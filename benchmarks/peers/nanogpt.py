"""nanoGPT's published CPU recipe for Shakespeare as one loop.

Prints seconds, tokens a second, the loss on the whole validation text, and the estimates on the way as the recipe
makes them: every 250 steps from 20 batches drawn at random, which is what the published figures are.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

EVERY = 250  # steps between estimates


class Block(nn.Module):
    """Attention and a GELU MLP of four times the width, each after a LayerNorm without bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width, bias=False), nn.LayerNorm(width, bias=False)
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=False), nn.Linear(width, width, bias=False)
        self.up, self.down = nn.Linear(width, 4 * width, bias=False), nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        rows, tokens, width = x.shape
        q, k, v = (
            part.view(rows, tokens, self.heads, -1).transpose(1, 2)
            for part in self.qkv(self.norm1(x)).split(width, 2)
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(rows, tokens, width))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Model(nn.Module):
    """GPT-2's shape: learned positions, a head tied to the embedding."""

    def __init__(self, words: int, layers: int, width: int, heads: int, block: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(words, width), nn.Embedding(block, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = math.sqrt(2 * layers) if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.02 / scale)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Mean cross-entropy of the targets y [rows, tokens] after the tokens x."""
        h = self.wte(x) + self.wpe.weight[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        logits = F.linear(self.norm(h), self.wte.weight)
        return F.cross_entropy(logits.flatten(0, 1), y.flatten())


def whole_loss(loss: nn.Module, ids: Tensor, block: int) -> float:
    """Mean nats a token over windows side by side, which every model of that context reads in the same way."""
    count = (len(ids) - 1) // block
    x, y = ids[: count * block].view(count, block), ids[1 : count * block + 1].view(count, block)
    with torch.no_grad():
        parts = [(len(a), float(loss(a, b))) for a, b in zip(x.split(256), y.split(256))]
    return sum(n * value for n, value in parts) / count


def checkout(given: argparse.Namespace) -> None:
    """Run the train.py of a checkout with the recipe's settings; its own report is what is printed."""
    folder = Path(given.checkout)
    data = folder / "data" / "shakespeare_char"
    (data / "input.txt").write_text(Path(given.data).read_text())
    subprocess.run([sys.executable, str(data / "prepare.py")], check=True, capture_output=True, cwd=data)
    words = {
        "device": "cpu", "compile": given.compile, "eval_iters": 20, "log_interval": 1, "block_size": given.block,
        "batch_size": given.rows, "n_layer": given.layers, "n_head": given.heads, "n_embd": given.width,
        "max_iters": given.steps, "lr_decay_iters": given.steps, "dropout": 0.0, "out_dir": "out-microgpt-bench",
    }  # fmt: skip
    command = [sys.executable, "train.py", "config/train_shakespeare_char.py"]
    started = time.perf_counter()
    done = subprocess.run(
        [*command, *(f"--{k}={v}" for k, v in words.items())], cwd=folder, capture_output=True, text=True, check=True
    )
    spent = time.perf_counter() - started
    times = [float(ms) for ms in re.findall(r"time ([0-9.]+)ms", done.stdout)][10:]
    validations = re.findall(r"val loss ([0-9.]+)", done.stdout)
    middle = sorted(times)[len(times) // 2] / 1000
    result = {"seconds": spent, "tokens_per_s": given.rows * given.block / middle, "loss": float(validations[-1])}
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="a text file; characters are its tokens")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--block", type=int, default=64)
    parser.add_argument("--rows", type=int, default=12)
    parser.add_argument("--vocab", type=int, default=0, help="words of a larger vocabulary, to time its head")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--checkout", default="", help="a checkout of nanoGPT whose train.py is run instead")
    parser.add_argument("--no-loss", action="store_true", help="only the speed: no evaluation")
    parser.add_argument("--times", default=os.devnull, help="a file that gets the seconds of each step")
    given = parser.parse_args()
    if given.checkout:
        checkout(given)
        return
    text = Path(given.data).read_bytes()
    words = np.unique(np.frombuffer(text, np.uint8))
    codes = np.searchsorted(words, np.frombuffer(text, np.uint8)).astype(np.int64)
    ids = torch.from_numpy(codes)
    cut = int(0.9 * len(ids))
    train, val = ids[:cut], ids[cut:]
    torch.manual_seed(given.seed)
    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    model = Model(given.vocab or len(words), given.layers, given.width, given.heads, given.block)
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    rest = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, betas=(0.9, 0.99))
    loss_of = torch.compile(model) if given.compile else model

    def batch(part: Tensor) -> tuple[Tensor, Tensor]:
        starts = torch.randint(len(part) - given.block, (given.rows,)).tolist()
        x = torch.stack([part[i : i + given.block] for i in starts])
        y = torch.stack([part[i + 1 : i + 1 + given.block] for i in starts])
        return x, y

    def estimate() -> float:
        with torch.no_grad():
            seen = [sum(float(loss_of(*batch(part))) for _ in range(20)) / 20 for part in (train, val)]
        return seen[1]

    estimates: dict[int, float] = {}
    times: list[float] = []
    started = time.perf_counter()
    x, y = batch(train)
    step = 0
    with open(given.times, "w", buffering=1) as noted:
        while step < given.steps:
            begun = time.perf_counter()
            warm, low = min(1.0, (step + 1) / 101), 1e-4
            share = min(1.0, max(0.0, (step - 100) / max(1, given.steps - 100)))
            rate = 1e-3 * warm if step < 100 else low + 0.5 * (1 + math.cos(math.pi * share)) * (1e-3 - low)
            for group in optimizer.param_groups:
                group["lr"] = rate
            if step % EVERY == 0 and not given.no_loss:
                estimates[step] = estimate()
            loss = loss_of(x, y)
            x, y = batch(train)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            loss.item()
            times.append(time.perf_counter() - begun)
            print(times[-1], file=noted)
            step += 1
    if step % EVERY == 0 and not given.no_loss:
        estimates[step] = estimate()
    spent = time.perf_counter() - started
    middle = sorted(times[len(times) // 4 :])[len(times[len(times) // 4 :]) // 2]
    result: dict[str, Any] = {"seconds": spent, "steps": step, "tokens_per_s": given.rows * given.block / middle}
    if not given.no_loss:
        result["loss"] = whole_loss(model, val, given.block)
        result["estimates"] = {str(at): round(value, 4) for at, value in estimates.items()}
    result["parameters"] = sum(p.numel() for p in model.parameters()) - model.wpe.weight.numel()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
