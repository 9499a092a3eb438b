"""Run every benchmark and write its JSON lines into benchmarks/RESULTS.md."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from microgpt.runtime import usable_cores

HERE = Path(__file__).parent
TRAINING = (
    "start",
    "time_to_loss",
    "same_tokens",
    "throughput",
    "short_documents",
    "tracking_cost",
    "scale",
    "shakespeare",
    "gpu",
)
OTHERS = (
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
    "recipe",
    "lab",
)
SCRIPTS = (*TRAINING, *OTHERS)
MORE = ("val_loss_at_equal_time", "curves", "seconds_a_step", "losses", "parameters", "recipe")
HEAD = """# Results

Made by `make bench` (training) and `make bench-more` (the rest), which run the scripts of this folder and take the
JSON lines that they end with. A ratio is ours over the other side, both measured in turn, the median of all rounds;
absolute figures hold for their machine only.

![ratios by measurement](ratios.png)
"""


def measured(script: str, smoke: bool) -> list[dict[str, Any]]:
    """The JSON lines of a script."""
    words = [sys.executable, str(HERE / f"{script}.py"), *(["--smoke"] if smoke else [])]
    started = time.perf_counter()
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True)
    print(f"== {script}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(f"{script} failed with exit code {done.returncode}")
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="once and small; writes nothing")
    parser.add_argument("--more", action="store_true", help="all but training: inference, tokenizing, tracking")
    parser.add_argument("scripts", nargs="*", help="only these")
    given = parser.parse_args()
    if given.smoke:
        # two at a time, as nothing is timed here, and short ones last; a failure ends it
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda script: measured(script, True), given.scripts or SCRIPTS[::-1]))
        return
    known = HERE / "results.json"
    results: dict[str, Any] = json.loads(known.read_text()) if known.exists() else {}
    for script in given.scripts or (OTHERS if given.more else TRAINING):
        if lines := measured(script, False):
            results[script] = {"date": time.strftime("%Y-%m-%d"), "machine": machine(), "lines": lines}
            known.write_text(json.dumps(results, indent=1) + "\n")
            write(results)


def machine() -> str:
    """What the figures of one script were measured on."""
    import torch

    kind = f"{platform.machine()} with {torch.backends.cpu.get_cpu_capability()}"
    return f"{usable_cores()} cores, {kind}, Python {platform.python_version()}"


def write(results: dict[str, Any]) -> None:
    """Render RESULTS.md."""
    machines = sorted({entry.get("machine", "not written down") for entry in results.values()})
    text = [HEAD, *(f"- machine {number}: {name}" for number, name in enumerate(machines, 1)), ""]
    text += ["| what | ours | other | unit | ratio (rounds) | goal | command, day, machine |", f"|{'---|' * 7}"]
    notes: list[str] = []
    for script in SCRIPTS:
        entry = results.get(script)
        for line in entry["lines"] if entry else []:
            rounds = ", ".join(f"{r:.3g}" for r in line.get("ratios", []))
            ratio = f"**{line['ratio']:.3g}**" + (f" ({rounds})" if rounds else "")
            text.append(
                f"| {line['name']} | {line['ours']:.4g} | {line['other']:.4g} | {line['unit']} | {ratio} | "
                f"{line.get('goal', '')} | `python benchmarks/{script}.py`, {entry['date']}, "
                f"{machines.index(entry.get('machine', 'not written down')) + 1} |"
            )
            rest = {key: line[key] for key in MORE if key in line}
            if rest:
                notes += ["", f"## {line['name']}", "", "```json", json.dumps(rest, indent=1), "```"]
    extra = HERE / "NOTES.md"
    if extra.exists():
        notes += ["", extra.read_text().rstrip()]
    drawn(results)
    (HERE / "RESULTS.md").write_text("\n".join([*text, *notes]) + "\n")


def drawn(results: dict[str, Any]) -> None:
    """Draw ratios.png: every ratio as a point, its rounds as smaller ones, 1 as a line."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    lines = [line for script in SCRIPTS for line in results.get(script, {"lines": []})["lines"]]
    figure, axes = plt.subplots(figsize=(9, 0.28 * len(lines) + 1))
    for place, line in enumerate(reversed(lines)):
        for ratio in line.get("ratios", []):
            axes.plot(ratio, place, ".", color="tab:blue", alpha=0.4)
        axes.plot(line["ratio"], place, "o", color="tab:blue")
    axes.axvline(1, color="gray", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_yticks(
        range(len(lines)), [f"{line['name'][:90]} ({line.get('goal', '')[:24]})" for line in reversed(lines)]
    )
    axes.tick_params(axis="y", labelsize=6)
    axes.set_xlabel("ours over the other side")
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(HERE / "ratios.png", dpi=110, bbox_inches="tight")
    plt.close(figure)


if __name__ == "__main__":
    main()
