"""What a CUDA GPU makes of the same command: seconds to nanoGPT's Shakespeare loss, and tokens a second at 124 M.

Needs a GPU; without one it says so and ends with 0. The peer's loop is `peers/nanogpt.py`, which runs on the CPU
only, so the other side of the first figure is nanoGPT's published three minutes of an A100.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import time

import torch
from common import arguments, data_file, scratch
from shakespeare_loss import trained, whole_loss

from microgpt.runs.folder import read_metrics


def speed(seconds: float) -> tuple[float, float]:
    """Median tokens a second and MFU, in percent of the card's measured peak, of GPT-2's 124 M in bf16."""
    home = scratch()
    words = [f"data.path={data_file('tinyshakespeare.txt')}", "data=shakespeare", "model=gpt2", "device=cuda"]
    words += ["data.batch_size=32", "trainer.max_steps=100000", "trainer.eval_batches=1", "device.compile=on"]
    words += ["tracking=off", "hydra.run.dir=run"]
    process = subprocess.Popen([sys.executable, "-m", "microgpt.train", *words], cwd=home, stderr=subprocess.PIPE)
    metrics = home / "run" / "metrics.jsonl"
    while not metrics.exists() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=300)
    if process.returncode != 130:
        raise SystemExit(said.decode()[-2000:])
    found = read_metrics(home / "run")

    def late(key: str) -> float:
        values = [value for _, value in sorted(found[key].items())]
        return statistics.median(values[len(values) // 4 :])

    return late("perf/tokens_per_s"), late("perf/mfu")


def main() -> None:
    given = arguments(__doc__ or "", 1)
    if not torch.cuda.is_available():
        print("no CUDA GPU is visible: nothing is measured", file=sys.stderr)
        return
    card = torch.cuda.get_device_name()
    run, spent = trained(["experiment=shakespeare", "device=cuda", *(["trainer.max_steps=4"] if given.smoke else [])])
    loss, _ = whole_loss(run, "best")
    shakespeare = {"name": f"{card}: seconds of experiment=shakespeare to {loss:.4f} over nanoGPT's published 180 s"}
    shakespeare |= {"ours": round(spent, 1), "other": 180, "unit": "s", "ratio": round(spent / 180, 4)}
    print(json.dumps(shakespeare | {"goal": "a third, at 1.4697 or less"}), flush=True)
    tokens, mfu = speed(5 if given.smoke else 60)
    large = {"name": f"{card}: MFU of GPT-2's 124 M in bf16, {tokens:,.0f} tokens/s", "ours": round(mfu, 1)}
    print(json.dumps(large | {"other": 55, "unit": "%", "ratio": round(mfu / 55, 4), "goal": "at least 55 %"}))


if __name__ == "__main__":
    main()
