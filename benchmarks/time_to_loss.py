"""Seconds to a validation loss of 1.88 on Shakespeare: a short, shallow `shakespeare_mini` over nanoGPT's recipe.

Both clocks start at the first batch and include validations; ours samples and checkpoints besides. Both models are
scored afterwards on the whole validation text, in the same windows of 64 characters. The peer runs whole in the first
round, where its losses are held against the published ones; later rounds time a quarter of its steps.
"""

from __future__ import annotations

import json
import statistics
import sys

from common import arguments
from shakespeare_loss import PUBLISHED, nanogpt, reproduces, trained, whole_loss

STEPS = 250
#: two layers with a wide MLP: more steps in the same time than six narrow ones, and 0.69 M parameters
RECIPE = ["experiment=shakespeare_mini", "model.n_layer=2", "model.mlp_hidden=704"]


def main() -> None:
    given = arguments(__doc__ or "", 3)
    ours: list[float] = []
    other: list[float] = []
    losses: list[list[float]] = []
    for turn in range(given.rounds):
        steps = 4 if given.smoke else STEPS
        run, spent = trained([*RECIPE, f"trainer.max_steps={steps}", f"seed={turn + 1}"])
        loss, size = whole_loss(run, smoke=given.smoke)
        part = 1 if turn == 0 else 4
        peer = nanogpt(4 if given.smoke else 2000 // part, ["--seed", str(1337 + turn)])
        print(
            f"round {turn + 1}: {spent:.1f} s to {loss:.4f} with {size:,} parameters, {peer}",
            file=sys.stderr,
            flush=True,
        )
        if not given.smoke and turn == 0:
            reproduces(peer["estimates"])
        if not given.smoke and loss > PUBLISHED:
            raise SystemExit(f"{steps} steps reach {loss:.4f} only")
        ours.append(spent)
        other.append(part * peer["seconds"])
        losses.append([round(loss, 4), round(peer["loss"], 4)])
    ratios = [a / b for a, b in zip(ours, other)]
    result = {
        "name": f"Shakespeare, seconds to {PUBLISHED}: {STEPS} steps of two layers over nanoGPT's",
        "ours": round(statistics.median(ours), 2),
        "other": round(statistics.median(other), 2),
        "unit": "s",
        "ratio": round(statistics.median(ratios), 4),
        "ratios": [round(r, 4) for r in ratios],
        "goal": "at most 0.167",
        "losses": losses,
        "recipe": " ".join([*RECIPE, f"trainer.max_steps={STEPS}"]),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
