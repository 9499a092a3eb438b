"""The loss after the same 1.536 M tokens of Shakespeare at nanoGPT's CPU size, and nanoGPT's own."""

from __future__ import annotations

import json
import sys

from common import arguments
from shakespeare_loss import PUBLISHED, trained, whole_loss


def main() -> None:
    given = arguments(__doc__ or "", 1)
    more = ["trainer.max_steps=2", "trainer.eval_batches=1"] if given.smoke else []
    run, spent = trained(["experiment=shakespeare_mini", *more])
    loss, size = whole_loss(run, smoke=given.smoke)
    print(f"{loss:.4f} with {size:,} parameters after {spent:.0f} s", file=sys.stderr)
    result = {
        "name": "Shakespeare, loss after 1.536 M tokens: experiment=shakespeare_mini over nanoGPT's published",
        "ours": round(loss, 4),
        "other": PUBLISHED,
        "unit": "nats a character",
        "ratio": round(loss / PUBLISHED, 4),
        "goal": "at most 1.55 nats",
        "parameters": size,
        "seconds": round(spent, 1),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
