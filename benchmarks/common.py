"""What the benchmark scripts share: two things measured in turn, the median of their ratios, one JSON line."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path


def arguments(description: str, rounds: int) -> argparse.Namespace:
    """The options of every script."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="how often both sides are measured")
    parser.add_argument("--smoke", action="store_true", help="once and small, to see that the script works")
    given = parser.parse_args()
    if given.smoke:
        given.rounds = 1
    return given


def seconds(command: list[str], cwd: str | Path | None = None) -> float:
    """Wall time of a command that must succeed."""
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd)
    spent = time.perf_counter() - started
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return spent


def compared(
    name: str, ours: Callable[[], float], other: Callable[[], float], rounds: int, goal: str, unit: str
) -> None:
    """Measure both in turn and print the medians and their ratio as the last line.

    Args:
        name: of the measurement.
        ours, other: measure one round, in `unit`.
        rounds: how often.
        goal: what the ratio ours/other should be.
        unit: of the figures.
    """
    a: list[float] = []
    b: list[float] = []
    for i in range(rounds):
        a.append(ours())
        b.append(other())
        print(f"round {i + 1}: ours {a[-1]:.4g} {unit}, other {b[-1]:.4g} {unit}", file=sys.stderr, flush=True)
    ratios = [x / y for x, y in zip(a, b)]
    result = {
        "name": name,
        "ours": round(statistics.median(a), 5),
        "other": round(statistics.median(b), 5),
        "unit": unit,
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(r, 4) for r in ratios],
        "goal": goal,
    }
    print(json.dumps(result), flush=True)


def scratch() -> Path:
    """A new folder for runs."""
    return Path(tempfile.mkdtemp(prefix="microgpt-bench-"))


def data_file(name: str) -> Path:
    """A file of MICROGPT_DATA_DIR.

    Raises:
        SystemExit: it is not at hand.
    """
    path = Path(os.environ.get("MICROGPT_DATA_DIR", "")) / name
    if not path.is_file():
        raise SystemExit(f"{name} is not at hand: set MICROGPT_DATA_DIR to the folder that holds it")
    return path
