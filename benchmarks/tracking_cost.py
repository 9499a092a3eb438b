"""What tracking costs: seconds of training with MLflow, system metrics, every step logged, over all of it off.

Both sides train in turn for a second each, with what feeds MLflow, and are timed from just before the first batch
to the last step.
"""

from __future__ import annotations

import json
import statistics
import sys
import time

from common import arguments, scratch
from turns import Held

from microgpt.runs.folder import METRICS, read_run

ON = ["tracking=mlflow", "tracking.system_interval=1", "trainer.log_interval=1"]
OFF = ["tracking=off", "tracking.system_interval=0", "tracking.progress=false", "trainer.log_interval=1000000"]
TURN = 1.0


class Training:
    """One side, held before its first batch."""

    def __init__(self, words: list[str], steps: int) -> None:
        fixed = ["data=names", "tokenizer=char", "model=tiny", "model.block_size=64", "data.batch_size=16"]
        fixed += [f"trainer.max_steps={steps}", f"trainer.eval_interval={steps}", "trainer.eval_batches=1"]
        fixed += ["device.compile=off", "sampling.max_new_tokens=8", "sampling.num_samples=1", "hydra.run.dir=run"]
        self._held = Held(["-m", "microgpt.train", *fixed, *words], scratch())
        self._last = f'"step": {steps},'
        self.seconds, self.end = 0.0, self._held.end
        self._held.until(self._ready, 400)

    def _ready(self) -> bool:
        run = self._held.home / "run"
        return (run / "run.json").exists() and bool(read_run(run).get("ready"))

    def done(self) -> bool:
        """Whether the last step is written down."""
        metrics = self._held.home / "run" / METRICS
        return metrics.exists() and self._last in metrics.read_text()[-4000:]

    def turn(self) -> None:
        """Some more seconds."""
        until = time.perf_counter() + TURN
        self.seconds += self._held.until(lambda: time.perf_counter() > until or self.done(), TURN + 60)


def pair(steps: int) -> tuple[float, float]:
    """Seconds of a training with tracking and of one without."""
    on, off = sides = Training(ON, steps), Training(OFF, steps)
    while not (on.done() and off.done()):
        for side in sides:
            if not side.done():
                side.turn()
    for side in sides:
        side.end()
    return on.seconds, off.seconds


def main() -> None:
    given = arguments(__doc__ or "", 5)
    found: list[tuple[float, float]] = []
    for turn in range(given.rounds):
        found.append(pair(10 if given.smoke else 800))
        print(f"round {turn + 1}: on {found[-1][0]:.2f} s, off {found[-1][1]:.2f} s", file=sys.stderr, flush=True)
    result = {
        "name": "seconds of training with everything tracked over nothing",
        "ours": round(statistics.median(on for on, _ in found), 3),
        "other": round(statistics.median(off for _, off in found), 3),
        "unit": "s",
        "ratio": round(statistics.median(on / off for on, off in found), 4),
        "ratios": [round(on / off, 4) for on, off in found],
        "goal": "at most 1.02",
    }
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
