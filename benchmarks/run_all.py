"""Run every benchmark and write its JSON lines into benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SCRIPTS = (
    "start",
    "steps",
    "tokenize_speed",
    "reference",
    "scalar_against_tensor",
    "chat_packing",
    "waiting_threads",
    "decode",
    "first_token",
    "serve_load",
    "same_answer",
    "locked_store",
)
MORE = ("val_loss_at_equal_time", "curves", "seconds_a_step")
HEAD = """# Results

Made by `make bench`, which runs every script of this folder and takes the JSON lines that they end with. A ratio is
ours over the other side, both measured in turn, the median of all rounds; absolute figures hold for the machine named
below only.
"""


def measured(script: str, smoke: bool) -> list[dict[str, Any]]:
    """The JSON lines of a script."""
    words = [sys.executable, str(HERE / f"{script}.py"), *(["--smoke"] if smoke else [])]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{script} failed with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="once and small; writes nothing")
    parser.add_argument("scripts", nargs="*", help="only these")
    given = parser.parse_args()
    known = HERE / "results.json"
    results: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    for script in given.scripts or SCRIPTS:
        print(f"== {script}", file=sys.stderr, flush=True)
        lines = measured(script, given.smoke)
        results[script] = {"date": time.strftime("%Y-%m-%d"), "lines": lines}
        if not given.smoke:
            known.write_text(json.dumps(results, indent=1) + "\n")
            write(results)


def write(results: dict[str, Any]) -> None:
    """Render RESULTS.md."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = [HEAD, f"Machine: {cores} cores, {platform.machine()}, Python {platform.python_version()}.\n"]
    text += ["| what | ours | other | unit | ratio (rounds) | goal | command |", "|---|---|---|---|---|---|---|"]
    notes: list[str] = []
    for script in SCRIPTS:
        entry = results.get(script)
        for line in entry["lines"] if entry else []:
            rounds = ", ".join(f"{r:.3g}" for r in line.get("ratios", []))
            ratio = f"**{line['ratio']:.3g}**" + (f" ({rounds})" if rounds else "")
            text.append(
                f"| {line['name']} | {line['ours']:.4g} | {line['other']:.4g} | {line['unit']} | {ratio} | "
                f"{line.get('goal', '')} | `python benchmarks/{script}.py`, {entry['date']} |"
            )
            rest = {key: line[key] for key in MORE if key in line}
            if rest:
                notes += ["", f"## {line['name']}", "", "```json", json.dumps(rest, indent=1), "```"]
    extra = HERE / "NOTES.md"
    if extra.exists():
        notes += ["", extra.read_text().rstrip()]
    (HERE / "RESULTS.md").write_text("\n".join([*text, *notes]) + "\n")


if __name__ == "__main__":
    main()
