"""What stands beside the charts: the metric explained, the run, the machine, samples, warnings."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from rich.style import Style
from rich.text import Text

from microgpt.errors import printable, visible
from microgpt.files import human_bytes
from microgpt.hub.ink import Ink
from microgpt.hub.measures import measure_of
from microgpt.hub.series import Series, duration, number
from microgpt.hub.watch import Watched

BARS = " ▁▂▃▄▅▆▇█"
PANELS = ("explanation", "run", "samples")


def _row(text: Text, ink: Ink, name: str, value: str, style: Style | None = None) -> None:
    text.append(f"{name:<12}", ink.dim)
    text.append(f"{value}\n", style or ink.text)


def explanation(key: str, run: Watched | None, ink: Ink) -> Text:
    """A metric: its numbers, then what it is, why it is looked at and how it is read."""
    measure = measure_of(key)
    facts = (run.of(key) if run else Series()).facts(run.limit if run else None)
    text = Text()
    text.append(f"{measure.title}", ink.head)
    text.append(f"  {key}\n", ink.dim)
    for name, value in (
        ("latest", facts.latest), ("Δ", facts.delta), ("min", facts.low), ("max", facts.high),
    ):  # fmt: skip
        text.append(f"{name} ", ink.dim)
        text.append(f"{number(value)}  ", ink.text)
    text.append("n ", ink.dim)
    text.append(f"{facts.count:,}\n", ink.text)
    for name, told in (("what", measure.what), ("why", measure.why), ("read", measure.how)):
        if told:
            text.append(f"{name} ", ink.accent)
            text.append(f"{told}\n", ink.text)
    return text


def legend(runs: Sequence[Watched], ink: Ink) -> Text:
    """The runs whose curves lie over each other, with the style of each; times of day only where names need them."""
    text = Text()
    short = [re.sub(r"^\d\d-\d\d-\d\d-", "", run.name) for run in runs]
    for i, run in enumerate(runs):
        text.append("━━ " if not (ink.plain and i) else "╌╌ ", ink.series[i % len(ink.series)])
        text.append(f"{short[i] if len(set(short)) == len(short) else run.name}  ", ink.text)
    return text


def warnings(run: Watched | None, ink: Ink) -> Text:
    """The warnings of a run."""
    text = Text()
    for alert in run.alerts.values() if run is not None else ():
        text.append(f"! {alert.title} ", ink.bad)
        text.append(f"{alert.text}\n", ink.text)
    return text


def bar(share: float, width: int = 16) -> str:
    """A share as a bar."""
    full = round(max(0.0, min(1.0, share)) * width)
    return "█" * full + "░" * (width - full)


def spark(values: Sequence[float], width: int) -> str:
    """The last values as a row of small bars."""
    last = values[-width:]
    if not last:
        return ""
    low, high = min(last), max(last)
    return "".join(BARS[1 + round((v - low) / ((high - low) or 1) * 7)] for v in last)


def about(run: Watched | None, ink: Ink) -> Text:
    """The run and the machine that it is on."""
    text = Text()
    if run is None:
        return text.append("no run is watched: s starts one, Runs lists what there is", ink.dim)
    facts: dict[str, Any] = run.facts
    text.append(f"{run.name}\n", ink.head)
    good = {"RUNNING": ink.good, "FINISHED": ink.text, "PRUNED": ink.text}.get(run.status, ink.bad)
    _row(text, ink, "status", run.status, good)
    if facts.get("error") and run.status != "FINISHED":
        _row(text, ink, "", printable(str(facts["error"])), ink.bad)
    total = run.max_steps
    told = f"{run.step:,}" + (f" of {total:,}  {bar(run.step / total)}" if total else "")
    _row(text, ink, "steps", told)
    left = run.of("progress/eta_s").facts(run.limit).latest
    if left is not None and run.status == "RUNNING":
        _row(text, ink, "left", duration(left))
    if facts.get("parameters"):
        _row(text, ink, "parameters", f"{facts['parameters']:,}")
    best = facts.get("best_val_loss")
    if isinstance(best, (int, float)):
        _row(text, ink, "best val", f"{best:.4f} at step {facts.get('best_step', 0):,}")
    text.append("\n")
    cpu, rss = run.of("system/cpu_percent"), run.of("system/process_mb")
    used, free = run.of("system/memory_used_mb").facts(run.limit), run.of("system/memory_free_mb").facts(run.limit)
    text.append("Machine\n", ink.head)
    busy = cpu.facts(run.limit).latest
    if busy is None:
        text.append("the first look comes after tracking.system_interval seconds\n", ink.dim)
    else:
        _row(text, ink, "CPU", f"{bar(busy / 100)} {busy:.0f} %")
        _row(text, ink, "", spark(cpu.values[: cpu.count(run.limit)], 16))
    if used.latest is not None and free.latest is not None:
        share = used.latest / max(1.0, used.latest + free.latest)
        _row(text, ink, "RAM", f"{bar(share)} {human_bytes(used.latest * 2**20)}")
    if (latest := rss.facts(run.limit).latest) is not None:
        _row(text, ink, "process", human_bytes(latest * 2**20))
    _row(text, ink, "pid", str(facts.get("pid", "-")))
    speed = run.of("perf/tokens_per_s").facts(run.limit).latest
    if speed is not None:
        _row(text, ink, "tokens/s", number(speed))
    return text


def samples(run: Watched | None, ink: Ink, lines: int = 60) -> Text:
    """What the model wrote on the way, the newest first."""
    text = Text()
    text.append("Samples\n", ink.head)
    shown = [s for s in (run.samples if run else []) if run is None or run.limit is None or s["step"] <= run.limit]
    if not shown:
        return text.append("none yet: they come with validations", ink.dim)
    count = 0
    for line in reversed(shown):
        text.append(f"step {line.get('step', 0):,}\n", ink.accent)
        prompts = line.get("prompts") or [""] * len(line["samples"])
        for prompt, sample in zip(prompts, line["samples"]):
            if prompt:
                text.append(f"{visible(str(prompt))} ", ink.dim)
            text.append(f"{visible(str(sample)).strip()}\n", ink.text)
            count += 1
        if count > lines:
            break
    return text
