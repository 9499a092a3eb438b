"""What tracking costs: seconds of training with MLflow, system metrics, every step logged, over all of it off."""

from __future__ import annotations

import sys

from common import arguments, compared, scratch, seconds

from microgpt.runs.folder import read_run

ON = ["tracking=mlflow", "tracking.system_interval=1", "trainer.log_interval=1"]
OFF = ["tracking=off", "tracking.system_interval=0", "tracking.progress=false", "trainer.log_interval=1000000"]


def wall(words: list[str], steps: int) -> float:
    """Seconds from the first batch to the end; validation, samples and checkpoints are the same on both sides."""
    home = scratch()
    fixed = ["data=names", "tokenizer=char", "model=tiny", "model.block_size=64", "data.batch_size=16"]
    fixed += [f"trainer.max_steps={steps}", f"trainer.eval_interval={steps}", "trainer.eval_batches=1"]
    fixed += ["device.compile=off", "sampling.max_new_tokens=8", "sampling.num_samples=1", "hydra.run.dir=run"]
    seconds([sys.executable, "-m", "microgpt.train", *fixed, *words], home)
    return float(read_run(home / "run")["wall_seconds"])


def main() -> None:
    given = arguments(__doc__ or "", 5)
    steps = 10 if given.smoke else 800
    compared(
        "seconds of training with everything tracked over nothing",
        lambda: wall(ON, steps),
        lambda: wall(OFF, steps),
        given.rounds,
        "at most 1.02",
        "s",
    )


if __name__ == "__main__":
    main()
