"""The scalar reference against the tensor model on the same job: Karpathy's microgpt on names, ms a step."""

from __future__ import annotations

import random
import sys
import time

from common import arguments, compared, data_file, scratch, seconds

from microgpt import reference


def main() -> None:
    given = arguments(__doc__ or "", 2)
    path = data_file("names.txt")
    few, many = (20, 60) if given.smoke else (200, 4200)
    words = ["experiment=micro", f"data.path={path}", "tracking=off", "trainer.eval_batches=1", "hydra.run.dir=run"]

    def command(steps: int) -> float:
        fixed = [f"trainer.max_steps={steps}", f"trainer.eval_interval={steps}", "sampling.num_samples=1"]
        return seconds([sys.executable, "-m", "microgpt.train", *words, *fixed], scratch())

    def tensor() -> float:
        return 1000 * (command(many) - command(few)) / (many - few)

    def scalar() -> float:
        training = reference.Training(reference.read_documents(path), reference.PRESETS["current"])
        started = time.perf_counter()
        for _ in range(20):
            training.step()
        return 1000 * (time.perf_counter() - started) / 20

    random.seed(0)
    compared(
        "a step of micro: the tensor model over the scalar reference", tensor, scalar, given.rounds, "below 1", "ms"
    )


if __name__ == "__main__":
    main()
