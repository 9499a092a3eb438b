"""What a tracking store that is locked costs a training: milliseconds a step, locked against free, in turn.

The lock is another process's exclusive transaction on the sqlite file, held from before the first step to after the
last one (a minute at full size).
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
from contextlib import closing
from pathlib import Path

from common import arguments, compared, scratch

WORDS = ["data=names", "tokenizer=char", "model=tiny", "model.block_size=64", "data.batch_size=16"]
WORDS += ["trainer.eval_batches=1", "sampling.num_samples=1", "sampling.max_new_tokens=4"]


def step_ms(home: Path, steps: int, locked: bool) -> float:
    """Median milliseconds of the steps that a training logged."""
    shutil.rmtree(home / "run", ignore_errors=True)
    words = [
        *WORDS,
        f"trainer.max_steps={steps}",
        "hydra.run.dir=run",
        "device.compile=off",
        "trainer.log_interval=1",
    ]
    command = [sys.executable, "-m", "microgpt.train", *words]
    with closing(sqlite3.connect(home / "mlruns" / "mlflow.db", isolation_level=None)) as store:
        process = subprocess.Popen(command, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        metrics = home / "run" / "metrics.jsonl"
        while not metrics.exists() and process.poll() is None:
            pass
        if locked:
            store.execute("PRAGMA busy_timeout = 20000")
            store.execute("BEGIN EXCLUSIVE")
        while process.poll() is None and (
            not metrics.exists() or f'"step": {steps},' not in metrics.read_text()[-4000:]
        ):
            try:
                process.wait(0.2)
            except subprocess.TimeoutExpired:
                continue
        if locked:
            store.execute("ROLLBACK")
    _, said = process.communicate(timeout=120)
    if process.returncode:
        raise SystemExit(said)
    lines = [json.loads(line)["metrics"] for line in metrics.read_text().splitlines()]
    return statistics.median(m["perf/step_ms"] for m in lines if "perf/step_ms" in m)


def main() -> None:
    given = arguments(__doc__ or "", 3)
    home = scratch()
    steps = 10 if given.smoke else 600
    first = [sys.executable, "-m", "microgpt.train", *WORDS, "trainer.max_steps=2", "hydra.run.dir=run"]
    subprocess.run(first, cwd=home, check=True, capture_output=True)  # the store is made, tokens are cached
    compared(
        "milliseconds a step with the store locked over with it free",
        lambda: step_ms(home, steps, True),
        lambda: step_ms(home, steps, False),
        given.rounds,
        "at most 1.02",
        "ms",
    )


if __name__ == "__main__":
    main()
