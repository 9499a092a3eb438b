"""How long does a step take when every + and * is a node of its own?

A stand-in for the original program (A. Karpathy 2026), written here from its public description, to
measure the reference against: local gradients as tuples, a recursive topological sort, one list
comprehension for every matrix product. It trains the `current` revision on the same documents with the
same seed, so both sides must print the same losses.

    python reference.py names.txt [--steps 30] [--rounds 3]

Runs both sides in turn and prints milliseconds a step; the last line is JSON with the ratio of medians.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from common import data_file

from microgpt.reference import PRESETS, Training, read_documents


class Node:
    """A scalar that keeps its children and d(self)/d(child) for each."""

    __slots__ = ("children", "data", "grad", "local")

    def __init__(self, data: float, children: tuple[Node, ...] = (), local: tuple[float, ...] = ()) -> None:
        self.data, self.grad, self.children, self.local = data, 0.0, children, local

    def __add__(self, other: Node | float) -> Node:
        other = other if isinstance(other, Node) else Node(other)
        return Node(self.data + other.data, (self, other), (1, 1))

    def __mul__(self, other: Node | float) -> Node:
        other = other if isinstance(other, Node) else Node(other)
        return Node(self.data * other.data, (self, other), (other.data, self.data))

    def __pow__(self, power: float) -> Node:
        return Node(self.data**power, (self,), (power * self.data ** (power - 1),))

    def exp(self) -> Node:
        return Node(math.exp(self.data), (self,), (math.exp(self.data),))

    def log(self) -> Node:
        return Node(math.log(self.data), (self,), (1 / self.data,))

    def relu(self) -> Node:
        return Node(max(0.0, self.data), (self,), (float(self.data > 0),))

    def __neg__(self) -> Node:
        return self * -1

    def __sub__(self, other: Node | float) -> Node:
        return self + (-other)

    def __truediv__(self, other: Node | float) -> Node:
        return self * other**-1

    __radd__ = __add__
    __rmul__ = __mul__

    def backward(self) -> None:
        order: list[Node] = []
        visited: set[Node] = set()

        def visit(node: Node) -> None:
            if node not in visited:
                visited.add(node)
                for child in node.children:
                    visit(child)
                order.append(node)

        visit(self)
        self.grad = 1.0
        for node in reversed(order):
            for child, slope in zip(node.children, node.local):
                child.grad += slope * node.grad


Nodes = list[Node]


def matmul(x: Nodes, weight: list[Nodes]) -> Nodes:
    return [sum((w * v for w, v in zip(row, x)), Node(0.0)) for row in weight]


def soft(logits: Nodes) -> Nodes:
    top = max(node.data for node in logits)
    powers = [(node - top).exp() for node in logits]
    whole = sum(powers, Node(0.0))
    return [power / whole for power in powers]


def normed(x: Nodes) -> Nodes:
    scale = (sum((v * v for v in x), Node(0.0)) / len(x) + 1e-5) ** -0.5
    return [v * scale for v in x]


def peer(documents: Sequence[str], seed: int = 42) -> Callable[[], float]:
    """Sets up the peer; each call of what it returns makes one step of 1000 and returns the loss."""
    width, heads, block = 16, 4, 16
    size = width // heads
    rng = random.Random(seed)
    docs = list(documents)
    rng.shuffle(docs)
    letters = sorted(set("".join(docs)))
    bos = len(letters)

    def matrix(rows: int, columns: int) -> list[Nodes]:
        return [[Node(rng.gauss(0, 0.08)) for _ in range(columns)] for _ in range(rows)]

    wte, wpe, head = matrix(bos + 1, width), matrix(block, width), matrix(bos + 1, width)
    wq, wk, wv, wo = (matrix(width, width) for _ in range(4))
    fc1, fc2 = matrix(4 * width, width), matrix(width, 4 * width)
    weights = [w for m in (wte, wpe, head, wq, wk, wv, wo, fc1, fc2) for row in m for w in row]
    first, second = [0.0] * len(weights), [0.0] * len(weights)
    step = 0

    def logits_of(token: int, position: int, keys: list[Nodes], values: list[Nodes]) -> Nodes:
        x = normed([a + b for a, b in zip(wte[token], wpe[position])])
        h = normed(x)
        query = matmul(h, wq)
        keys.append(matmul(h, wk))
        values.append(matmul(h, wv))
        mixed: Nodes = []
        for at in range(0, width, size):
            scores = [sum((query[at + j] * key[at + j] for j in range(size)), Node(0.0)) / size**0.5 for key in keys]
            share = soft(scores)
            mixed += [sum((share[t] * values[t][at + j] for t in range(len(values))), Node(0.0)) for j in range(size)]
        x = [a + b for a, b in zip(x, matmul(mixed, wo))]
        hidden = [v.relu() for v in matmul(normed(x), fc1)]
        x = [a + b for a, b in zip(x, matmul(hidden, fc2))]
        return matmul(x, head)

    def train_step() -> float:
        nonlocal step
        tokens = [bos, *map(letters.index, docs[step % len(docs)]), bos]
        keys: list[Nodes] = []
        values: list[Nodes] = []
        losses: Nodes = []
        for position in range(min(block, len(tokens) - 1)):
            probabilities = soft(logits_of(tokens[position], position, keys, values))
            losses.append(-probabilities[tokens[position + 1]].log())
        loss = sum(losses, Node(0.0)) * (1 / len(losses))
        loss.backward()
        rate = 0.01 * (1 - step / 1000)
        step += 1
        for i, w in enumerate(weights):
            first[i] = 0.85 * first[i] + (1 - 0.85) * w.grad
            second[i] = 0.99 * second[i] + (1 - 0.99) * w.grad**2
            w.data -= rate * (first[i] / (1 - 0.85**step)) / ((second[i] / (1 - 0.99**step)) ** 0.5 + 1e-8)
            w.grad = 0.0
        return loss.data

    return train_step


def timed(train_step: Callable[[], float], steps: int) -> tuple[float, list[float]]:
    """(milliseconds a step, losses) of the next `steps` steps."""
    start = time.perf_counter()
    losses = [train_step() for _ in range(steps)]
    return (time.perf_counter() - start) * 1e3 / steps, losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", type=Path, nargs="?", help="a names file; by default that of MICROGPT_DATA_DIR")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--smoke", action="store_true", help="once and small, to see that the script works")
    options = parser.parse_args()
    if options.smoke:
        options.steps, options.rounds = 2, 1
    # The recursion reaches as deep as the graph, many thousand frames; the reference has no need of this.
    sys.setrecursionlimit(1_000_000)
    documents = read_documents(options.names or data_file("names.txt"))
    times: dict[str, list[float]] = {"original style": [], "reference": []}
    for _ in range(options.rounds):
        training = Training(documents, PRESETS["current"])
        sides = {
            "original style": peer(documents),
            "reference": lambda training=training: training.step().loss,
        }
        losses: dict[str, list[float]] = {}
        for name, train_step in sides.items():
            milliseconds, losses[name] = timed(train_step, options.steps)
            times[name].append(milliseconds)
            print(f"{name:>14} | {milliseconds:7.1f} ms a step | loss {losses[name][-1]:.10f}", flush=True)
        distance = max(abs(a - b) for a, b in zip(*losses.values()))
        if distance > 1e-9:
            raise SystemExit(f"the two sides compute different things: losses differ by {distance:.3g}")
    ours, other = times["reference"], times["original style"]
    ratios = [x / y for x, y in zip(ours, other)]
    result = {
        "name": "a step of the scalar reference over a program in the original's style",
        "ours": round(statistics.median(ours), 3),
        "other": round(statistics.median(other), 3),
        "unit": "ms",
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(r, 4) for r in ratios],
        "goal": "at most 1",
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
