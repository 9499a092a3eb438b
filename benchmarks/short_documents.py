"""Real tokens a second on names at a context of 64: packed rows over one name a row, padded."""

from __future__ import annotations

import sys

from common import arguments, compared, data_file, scratch, seconds

from microgpt.runs.folder import read_run


def real_tokens(packing: bool, steps: int) -> float:
    """Tokens that count towards the loss, a second."""
    home = scratch()
    words = ["data=names", f"data.path={data_file('names.txt')}", "tokenizer=char", "model=small"]
    words += ["model.block_size=64", "data.batch_size=32", f"data.packing={str(packing).lower()}", "tracking=off"]
    words += [f"trainer.max_steps={steps}", "trainer.eval_batches=1", "device.compile=off", "hydra.run.dir=run"]
    seconds([sys.executable, "-m", "microgpt.train", *words, "sampling.max_new_tokens=8"], home)
    facts = read_run(home / "run")
    return facts["tokens"] / facts["train_seconds"]


def main() -> None:
    given = arguments(__doc__ or "", 3)
    steps = 4 if given.smoke else 80
    compared(
        "names, context 64: real tokens a second of packed rows over padded ones",
        lambda: real_tokens(True, steps),
        lambda: real_tokens(False, steps),
        given.rounds,
        "at least 10",
        "tokens/s",
    )


if __name__ == "__main__":
    main()
