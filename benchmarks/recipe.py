"""What each part of the default recipe is worth: sweeps of the training command, one change at a time, three seeds.

Each change's loss is the mean of its seeds on the whole validation set, in bits a byte.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from common import arguments, data_file, scratch

CHANGES = {
    "defaults": [],
    "no norm after the embedding": ["model.embed_norm=false"],
    "no norm of queries and keys": ["model.qk_norm=false"],
    "norms without gains": ["model.norm=rmsnorm_nogain"],
    "ReLU squared": ["model.mlp=relu2"],
    "muon .02": ["optimizer.muon_learning_rate=0.02"],
    "muon .045": ["optimizer.muon_learning_rate=0.045"],
    "momentum .95": ["optimizer.muon_momentum=0.95"],
    "AdamW alone": ["optimizer=adamw"],
}
#: data set: file, overrides, rows, steps
SETS = {
    "tinyshakespeare": ("tinyshakespeare.txt", [
        "data=shakespeare", "tokenizer=char", "model=small", "model.block_size=64", "model.mlp_hidden=320",
    ], 12, 200),
    "OASST1": ("oasst1_chat.jsonl", ["data=oasst1", "model=small", "model.block_size=256"], 8, 80),
}  # fmt: skip
SEEDS = (1, 2, 3)


def losses(words: list[str], seeds: tuple[int, ...]) -> list[float]:
    """Bits a byte of one change, a seed each, by one multirun."""
    home = scratch()
    seed = "seed=" + ",".join(map(str, seeds))
    command = [sys.executable, "-m", "microgpt.train", "-m", *words, seed, "hydra.sweep.dir=sweep"]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    runs = [json.loads(path.read_text()) for path in sorted(home.glob("sweep/*/run.json"))]
    return [run["best_val_bpb"] for run in runs]


def main() -> None:
    given = arguments(__doc__ or "", 1)
    for name, (file, words, rows, steps) in list(SETS.items())[: 1 if given.smoke else None]:
        chosen = dict(list(CHANGES.items())[: 1 if given.smoke else None])
        seeds = SEEDS[: 1 if given.smoke else None]
        steps = 3 if given.smoke else steps
        table: dict[str, list[float]] = {}
        for change, more in chosen.items():
            fixed = [f"data.path={data_file(file)}", f"data.batch_size={rows}", f"trainer.max_steps={steps}"]
            fixed += [f"trainer.eval_interval={steps}", f"trainer.eval_batches={int(given.smoke)}"]
            quiet = ["tracking=off", "device.threads=1", "sampling.num_samples=1", "sampling.max_new_tokens=4"]
            table[change] = losses([*words, *more, *fixed, *quiet], seeds)
            mean = statistics.mean(table[change])
            print(f"{name}: {change:<34}{mean:.4f}  {table[change]}", file=sys.stderr, flush=True)
        base = statistics.mean(table["defaults"])
        worst = max(table, key=lambda change: statistics.mean(table[change]))
        result = {
            "name": f"{name}, {steps} steps of {rows} rows: bits a byte of the default recipe over the worst change",
            "ours": round(base, 5),
            "other": round(statistics.mean(table[worst]), 5),
            "unit": "bits a byte",
            "ratio": round(base / statistics.mean(table[worst]), 4),
            "goal": "no change is better",
            "curves": {change: [round(v, 4) for v in values] for change, values in table.items()},
        }
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
