"""How long until something happens: `microgpt --help`, and the first optimizer step of a training command."""

from __future__ import annotations

import subprocess
import sys
import time

from common import arguments, compared, scratch, seconds


def first_step(folder_number: list[int]) -> float:
    """Seconds from the start of the command to its first logged optimizer step."""
    folder_number[0] += 1
    home = scratch()
    words = [sys.executable, "-m", "microgpt.train", "trainer.max_steps=1", "hydra.run.dir=run", "tracking=off"]
    started = time.perf_counter()
    process = subprocess.Popen(words, cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    metrics = home / "run" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.002)
    spent = time.perf_counter() - started
    if process.wait():
        raise SystemExit("the training command failed")
    return spent


def main() -> None:
    given = arguments(__doc__ or "", 3)
    seconds([sys.executable, "-m", "microgpt.cli", "--help"])  # both warm
    compared(
        "microgpt --help over python -c pass",
        lambda: seconds([sys.executable, "-m", "microgpt.cli", "--help"]),
        lambda: seconds([sys.executable, "-c", "pass"]),
        given.rounds * 4,
        "at most 2x python -c pass plus 0.2 s",
        "s",
    )
    count = [0]
    if not given.smoke:
        first_step(count)  # tokens are cached from here on
    compared(
        "first optimizer step over importing torch and Lightning",
        lambda: first_step(count),
        lambda: seconds([sys.executable, "-c", "import torch, pytorch_lightning"]),
        given.rounds,
        "at most 1.5",
        "s",
    )


if __name__ == "__main__":
    main()
