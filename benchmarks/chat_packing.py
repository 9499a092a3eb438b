"""Chat training: conversations packed into full rows against one a row, in tokens that count and in loss by time."""

from __future__ import annotations

import json
import sys
from itertools import islice

from common import arguments, data_file, scratch, seconds

from microgpt.runs.folder import read_metrics, read_run


def main() -> None:
    given = arguments(__doc__ or "", 1)
    path = data_file("oasst1_chat.jsonl")
    steps = 2 if given.smoke else 150
    home = scratch()
    if given.smoke:
        with open(path, encoding="utf-8") as file:
            part = "".join(islice(file, 60))
        path = home / "chats.jsonl"
        path.write_text(part, encoding="utf-8")
    results: dict[str, dict[str, object]] = {}
    for name, packing in (("packed", "true"), ("one a row", "false")):
        run = home / name.replace(" ", "-")
        words = [
            f"data.path={path}",
            f"model={'tiny' if given.smoke else 'small'}",
            "tracking=off",
            f"data.packing={packing}",
            f"hydra.run.dir={run}",
        ]
        words += [f"trainer.max_steps={steps}", f"trainer.eval_interval={max(1, steps // 10)}", "device.compile=off"]
        words += ["sampling.max_new_tokens=8", "optimizer.schedule=constant"]
        words += ["trainer.eval_batches=1"] if given.smoke else []
        seconds([sys.executable, "-m", "microgpt.train", *words], home)
        metrics, facts = read_metrics(run), read_run(run)
        speed = facts["tokens"] / facts["train_seconds"]
        curve = {str(s): round(v, 4) for s, v in sorted(metrics["val/loss"].items())}
        results[name] = {
            "reply_tokens_per_s": round(speed, 1),
            "train_seconds": facts["train_seconds"],
            "seconds_a_step": round(facts["train_seconds"] / steps, 4),
            "reply_tokens": facts["tokens"],
            "val_loss_by_step": curve,
        }
    packed, padded = results["packed"], results["one a row"]
    # the padded run's last loss, and the packed run's loss at the latest validation within the same seconds
    each = float(str(packed["seconds_a_step"]))
    limit = float(str(padded["train_seconds"]))
    curve = packed["val_loss_by_step"]
    assert isinstance(curve, dict)
    within = [v for s, v in curve.items() if int(s) * each <= limit] or [next(iter(curve.values()))]
    print(json.dumps(results, indent=1), file=sys.stderr)
    ratio = float(str(packed["reply_tokens_per_s"])) / float(str(padded["reply_tokens_per_s"]))
    last = list(padded["val_loss_by_step"].values())[-1]  # type: ignore[attr-defined]
    print(
        json.dumps(
            {
                "name": "OASST1 chat, model=small: packed rows over one conversation a row",
                "ours": packed["reply_tokens_per_s"],
                "other": padded["reply_tokens_per_s"],
                "unit": "reply tokens/s",
                "ratio": round(ratio, 3),
                "goal": "loss at equal time is lower",
                "val_loss_at_equal_time": {"packed": within[-1], "one a row": last, "seconds": round(limit, 1)},
                "curves": {k: v["val_loss_by_step"] for k, v in results.items()},
                "seconds_a_step": {k: v["seconds_a_step"] for k, v in results.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
