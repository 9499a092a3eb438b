"""What the size of a text does to a training: tokens a second, memory and the share of waiting, large over small.

The text is generated from a seed, as words of made-up letters; it is tokenized into shards first, which is timed too.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from pathlib import Path

from common import scratch, seconds

from microgpt.runs.folder import read_metrics


def written(path: Path, size: int) -> Path:
    """A text of `size` bytes in lines of a few words; a block of lines is written again in another order."""
    draw = random.Random(1)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(20000)]
    lines = [" ".join(draw.choices(words, k=12)) for _ in range(100_000)]
    with open(path, "w", encoding="ascii") as file:
        left = size
        while left > 0:
            draw.shuffle(lines)
            block = f"{draw.random()}\n" + "\n".join(lines) + "\n"
            file.write(block[:left])
            left -= len(block)
    return path


def measured(text: Path, steps: int) -> dict[str, float]:
    """One training: seconds of tokenizing, then speed, memory and waiting."""
    home = text.parent / f"run-{text.stem}"
    home.mkdir(exist_ok=True)
    words = [f"data.path={text}", "model=tiny", "tokenizer.vocab_size=1024", "tracking=off", "hydra.run.dir=run"]
    words += [f"trainer.max_steps={steps}", "trainer.eval_batches=8", f"trainer.eval_interval={steps}"]
    words += ["device.compile=off", "sampling.max_new_tokens=8", "sampling.num_samples=1", "data.val_fraction=0.01"]
    started = time.perf_counter()
    seconds([sys.executable, "-m", "microgpt.train", *words], home)
    whole = time.perf_counter() - started
    metrics = read_metrics(home / "run")

    def middle(key: str) -> float:
        values = [v for _, v in sorted(metrics[key].items())]
        return statistics.median(values[len(values) // 4 :])

    return {
        "seconds": whole,
        "tokens_per_s": middle("perf/tokens_per_s"),
        "mem_peak_mb": max(metrics["perf/mem_peak_mb"].values()),
        "data_wait_pct": middle("perf/data_wait_pct"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--megabytes", type=int, default=200, help="size of the large text; 2000 for the whole goal")
    given = parser.parse_args()
    home = scratch()
    large = 2 if given.smoke else given.megabytes
    sides = {
        size: measured(written(home / f"{size}.txt", size << 20), 4 if given.smoke else 150) for size in (1, large)
    }
    small, big = sides[1], sides[large]
    print(json.dumps(sides), file=sys.stderr)
    goals = {"tokens_per_s": "about 1", "mem_peak_mb": "about 1", "data_wait_pct": "under 2 percent"}
    for key, goal in goals.items():
        result = {
            "name": f"{key} with {large} MB of text over 1 MB",
            "ours": round(big[key], 3),
            "other": round(small[key], 3),
            "unit": "",
            "ratio": round(big[key] / max(1e-9, small[key]), 4),
            "goal": goal,
            "seconds": round(big["seconds"], 1),
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
