"""What Lightning, logging and the run folder cost a step: the whole command against a bare loop on equal batches.

Each side is a process of its own, run with few and with many steps; the difference over the difference is a step.
"""

from __future__ import annotations

import json
import sys

from common import arguments, compared, scratch, seconds

SHAPES = {
    # name: (overrides, few steps, many steps, goal)
    "small": (["model=small", "data=tales"], 4, 24, "at most 1.05"),
    "micro": (
        ["model=micro", "data=names", "tokenizer=char", "data.packing=false", "data.batch_size=1", "optimizer=micro"],
        200, 4200, "at most 1.25",
    ),
}  # fmt: skip
BARE = """
import json, sys
from microgpt.runtime import prepare_process, set_threads
prepare_process()
import torch
from microgpt.config.auto import resolved_shape
from microgpt.config.compose import compose
from microgpt.data.mixture import prepare_all
from microgpt.model.gpt import GPT
from microgpt.training.optimizer import make_optimizer
from microgpt.training.schedule import make_schedule
words, steps = json.loads(sys.argv[1]), int(sys.argv[2])
config = resolved_shape(compose([*words, f"trainer.max_steps={steps}"]), 1)
set_threads(0)
prepared = prepare_all(config.data, config.tokenizer, None, False, config.model.block_size)
model = GPT(config.model, prepared.tokenizer.vocab_size)
model.init_weights(config.seed)
batches = prepared.train_batches(config.data, config.model.block_size, config.data.batch_size, config.seed)
optimizer = make_optimizer(model, config.optimizer)
schedule = make_schedule(config.optimizer, steps)
clip = config.optimizer.grad_clip
for step in range(steps):
    batch = batches.micro_batch(step)
    x, y, p = (torch.from_numpy(a) for a in (batch.inputs, batch.targets, batch.positions))
    s = None if batch.segments is None else torch.from_numpy(batch.segments)
    (model.loss(x, y, p, s) / batch.target_count).backward()
    if clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * schedule.factor(step)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
"""


def whole(words: list[str], steps: int) -> float:
    """Seconds of the training command, validation once at the end and on little."""
    home = scratch()
    fixed = [f"trainer.eval_interval={steps}", "trainer.eval_batches=1", "tracking=off", "device.compile=off"]
    fixed += ["sampling.num_samples=1", "sampling.max_new_tokens=4", "hydra.run.dir=run"]
    return seconds([sys.executable, "-m", "microgpt.train", *words, f"trainer.max_steps={steps}", *fixed], home)


def bare(words: list[str], steps: int) -> float:
    """Seconds of a process with nothing but the loop."""
    return seconds([sys.executable, "-c", BARE, json.dumps(words), str(steps)])


def main() -> None:
    given = arguments(__doc__ or "", 3)
    for name, (words, few, many, goal) in list(SHAPES.items())[1 if given.smoke else 0 :]:
        if given.smoke:
            few, many = 1, 3
        else:
            whole(words, 1)  # tokens are cached from here on

        def ours(words: list[str] = words, few: int = few, many: int = many) -> float:
            return 1000 * (whole(words, many) - whole(words, few)) / (many - few)

        def other(words: list[str] = words, few: int = few, many: int = many) -> float:
            return 1000 * (bare(words, many) - bare(words, few)) / (many - few)

        compared(f"a step of {name}: the training command over a bare loop", ours, other, given.rounds, goal, "ms")


if __name__ == "__main__":
    main()
