"""OpenMP threads that sleep while they wait against threads that spin: on a quiet machine, and beside other work."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

from common import arguments, compared, scratch

from microgpt.runs.folder import read_run


def busy() -> None:
    """Keep a core busy."""
    while True:
        pass


def tokens_per_s(policy: str, steps: int, model: list[str]) -> float:
    home = scratch()
    words = [
        sys.executable,
        "-m",
        "microgpt.train",
        *model,
        f"trainer.max_steps={steps}",
        "tracking=off",
        "hydra.run.dir=run",
    ]
    words += [
        f"trainer.eval_interval={steps}",
        "trainer.eval_batches=4",
        "sampling.num_samples=1",
        "sampling.max_new_tokens=4",
    ]
    environment = {**os.environ, "OMP_WAIT_POLICY": policy}
    subprocess.run(words, cwd=home, env=environment, check=True, capture_output=True)
    facts = read_run(home / "run")
    return facts["tokens"] / facts["train_seconds"]


def main() -> None:
    given = arguments(__doc__ or "", 2)
    steps, model = (3, ["model=tiny", "data=names", "tokenizer=char"]) if given.smoke else (20, [])
    for load in (0,) if given.smoke else (0, 1):
        others = [multiprocessing.Process(target=busy, daemon=True) for _ in range(load)]
        for process in others:
            process.start()
        name = f"sleeping over spinning threads, {load} other busy process{'es' if load != 1 else ''}"
        compared(
            name,
            lambda: tokens_per_s("passive", steps, model),
            lambda: tokens_per_s("active", steps, model),
            given.rounds,
            "about 1 alone, above 1 beside others",
            "tokens/s",
        )
        for process in others:
            process.terminate()


if __name__ == "__main__":
    main()
