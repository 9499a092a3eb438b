"""What the size of a text does to a training: tokens a second, memory and the share of waiting, large over small.

The text is generated from a seed, as words of made-up letters, into a scratch folder that is removed afterwards with
the tokens made from it. Memory is the peak of the whole command with its tokenizing, and of all processes beside it;
the training is also measured a second time, from the tokens of the first. `--parquet` writes the text as one Parquet
file with row groups of 64 MB instead.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from common import scratch

from microgpt.runs.folder import read_metrics


def blocks(size: int) -> Iterator[list[str]]:
    """Lines of a few words of `size` bytes together; a block of lines comes again in another order."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20000)]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(100_000)]
    length = sum(map(len, lines)) + len(lines)
    while size > 0:
        draw.shuffle(lines)
        part = lines if size >= length else lines[: len(lines) * size // length + 1]
        yield [str(draw.random()), *part]
        size -= length


def written(folder: Path, size: int, parquet: bool) -> Path:
    """A text of about `size` bytes."""
    if not parquet:
        path = folder / "text.txt"
        with open(path, "w", encoding="ascii") as file:
            for lines in blocks(size):
                file.write("\n".join(lines) + "\n")
        return path
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = folder / "text.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        waiting: list[str] = []
        for lines in blocks(size):
            waiting += lines
            if len(waiting) > 800_000:
                writer.write_table(pa.table({"text": waiting}), row_group_size=len(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.table({"text": waiting}), row_group_size=len(waiting))
    return path


class Peak:
    """The most memory that a process has had, by the kernel's count, and those below it, by looking."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.own = self.private = self.others = 0.0
        self._process = psutil.Process(process.pid)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            try:
                status = Path(f"/proc/{self._process.pid}/status").read_text()
                fields = dict(
                    line.split(":", 1) for line in status.splitlines() if line.startswith(("VmHWM", "RssAnon"))
                )
                self.own = max(self.own, int(fields["VmHWM"].split()[0]) / 1024)
                self.private = max(self.private, int(fields["RssAnon"].split()[0]) / 1024)
                below = self._process.children(recursive=True)
                self.others = max(self.others, sum(p.memory_info().rss for p in below if p.is_running()) / 2**20)
            except (OSError, KeyError, ValueError, psutil.Error):
                if self._process_gone():
                    return
            time.sleep(0.1)

    def _process_gone(self) -> bool:
        return not psutil.pid_exists(self._process.pid) or self._process.status() == psutil.STATUS_ZOMBIE


def ran(words: list[str], home: Path, environment: dict[str, str]) -> tuple[float, Peak]:
    """(seconds, peak) of a command that must succeed."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "microgpt.train", *words]
    with open(home / "errors", "w+") as errors:
        process = subprocess.Popen(command, cwd=home, env=environment, stdout=errors, stderr=errors, text=True)
        peak = Peak(process)
        if process.wait():
            errors.seek(0)
            raise SystemExit(f"{command} failed:\n{errors.read()}")
    return time.perf_counter() - started, peak


def measured(size: int, steps: int, tokenizer: str, parquet: bool) -> dict[str, float]:
    """One training from its text, and one more from its tokens."""
    home = scratch()
    try:
        text = written(home, size, parquet)
        environment = {**os.environ, "MICROGPT_CACHE_DIR": str(home / "cache")}
        words = [f"data.path={text}", "model=tiny", f"tokenizer={tokenizer}", "tracking=off"]
        words += [f"trainer.max_steps={steps}", "trainer.eval_batches=8", f"trainer.eval_interval={steps}"]
        words += [
            "device.compile=off",
            "sampling.max_new_tokens=8",
            "sampling.num_samples=1",
            "data.val_fraction=0.01",
        ]
        if tokenizer != "char":
            words.append("tokenizer.vocab_size=1024")
        whole, first = ran([*words, "hydra.run.dir=first"], home, environment)
        _, second = ran([*words, "hydra.run.dir=second"], home, environment)
        metrics = read_metrics(home / "second")

        def middle(key: str) -> float:
            values = [v for _, v in sorted(metrics[key].items())]
            return statistics.median(values[len(values) // 4 :])

        return {
            "text_mb": round(text.stat().st_size / 2**20),
            "seconds": round(whole, 1),
            "tokens_per_s": middle("perf/tokens_per_s"),
            "peak_mb": first.own,
            "peak_private_mb": first.private,
            "workers_mb": first.others,
            "peak_from_tokens_mb": second.own,
            "data_wait_pct": middle("perf/data_wait_pct"),
        }
    finally:
        shutil.rmtree(home, ignore_errors=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--megabytes", default="1,2000", help="sizes; the last is compared with the first")
    parser.add_argument("--tokenizer", default="char", help="bpe takes ten times as long")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--parquet", action="store_true")
    given = parser.parse_args()
    sizes = [1] if given.smoke else [int(s) for s in given.megabytes.split(",")]
    steps = 4 if given.smoke else given.steps
    sides: dict[int, dict[str, float]] = {}
    for size in sizes:
        sides[size] = measured(size << 20, steps, given.tokenizer, given.parquet)
        print(json.dumps({size: sides[size]}), file=sys.stderr, flush=True)
    small, large = sides[sizes[0]], sides[sizes[-1]]
    goals = {
        "tokens_per_s": "about 1",
        "peak_mb": "about 1",
        "peak_from_tokens_mb": "about 1",
        "data_wait_pct": "under 2 percent",
    }
    for key, goal in goals.items():
        result = {
            "name": f"{key} with {sizes[-1]} MB of text over {sizes[0]} MB",
            "ours": round(large[key], 3),
            "other": round(small[key], 3),
            "unit": "",
            "ratio": round(large[key] / max(1e-9, small[key]), 4),
            "goal": goal,
            "seconds": large["seconds"],
            "sides": sides,
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
