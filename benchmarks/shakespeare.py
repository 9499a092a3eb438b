"""Minutes of `experiment=shakespeare`, and its loss on the whole validation text beside nanoGPT's 1.4697."""

from __future__ import annotations

import json
import sys

from common import arguments
from shakespeare_loss import trained, whole_loss

PUBLISHED, PUBLISHED_MINUTES = 1.4697, 3.0


def main() -> None:
    given = arguments(__doc__ or "", 1)
    more = ["trainer.max_steps=2", "trainer.eval_batches=1", "device.compile=off"] if given.smoke else []
    run, spent = trained(["experiment=shakespeare", *more])
    loss, size = whole_loss(run, "best", given.smoke)
    print(f"{loss:.4f} with {size:,} parameters after {spent:.0f} s", file=sys.stderr)
    result = {
        "name": f"experiment=shakespeare: loss {loss:.4f}; nanoGPT publishes {PUBLISHED}, 3 min of an A100",
        "ours": round(spent / 60, 2),
        "other": PUBLISHED_MINUTES,
        "unit": "minutes",
        "ratio": round(loss / PUBLISHED, 4),
        "goal": "loss over loss at most 1, within 10 minutes of two cores",
        "parameters": size,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
