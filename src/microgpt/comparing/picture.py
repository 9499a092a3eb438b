"""curves.png: the validation losses of all runs, over steps and over compute."""

from __future__ import annotations

import io
import warnings
from typing import Any

from microgpt.comparing.page import MARKED
from microgpt.errors import printable

PANELS = (("step", "step"), ("flops", "FLOPs of training"))
MUTED = "#b9b3a7"
COLOURS = ("#1f6fb4", "#c8541b", "#1b8a5a", "#9a4fb0", "#96680f", "#c23a6b", "#1f8494", "#6b6459")


def _xs(run: dict[str, Any], axis: str) -> list[float | None]:
    curve = run["validation"]
    if axis != "flops":
        return curve[axis]
    each = run["flops_per_token"]
    return [None if each is None or t is None else t * each for t in curve["tokens"]]


def _label(text: str) -> str:
    """A label that is drawn as it stands: a dollar sign would begin a formula, an underscore hide it."""
    return " " + printable(text)[:90].replace("$", r"\$")


def picture(told: dict[str, Any]) -> bytes:
    """A PNG from what `report` tells. The best runs have a colour and a name, the others are grey."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    panels = figure.subplots(1, len(PANELS), sharey=True)
    for axes, (axis, label) in zip(panels, PANELS):
        for number, run in reversed(list(enumerate(told["runs"]))):
            points = [(x, y) for x, y in zip(_xs(run, axis), run["validation"]["value"]) if x is not None]
            if not points:
                continue
            best = number < MARKED
            axes.plot(
                [p[0] for p in points],
                [p[1] for p in points],
                color=COLOURS[number] if best else MUTED,
                linewidth=1.5 if best else 0.8,
                marker="" if len(points) > 1 else "o",
                label=_label(run["label"]) if best and axis == "step" else None,
            )
        axes.set_xlabel(label)
    panels[0].set_ylabel(f"validation loss, {told['unit']}")
    values = [y for run in told["runs"] for y in run["validation"]["value"]]
    ends = [run["validation"]["value"][0] for run in told["runs"] if run["validation"]["value"]]
    if values and len(ends) > 1:  # a diverged run would press the others together
        low, high = min(values), sorted(ends)[round(0.9 * (len(ends) - 1))]
        room = 0.05 * ((high - low) or 1.0)
        panels[0].set_ylim(low - room, high + room)
    if any(run["validation"]["value"] for run in told["runs"][:MARKED]):
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", fontsize=8, ncols=2)
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name in a script that the font lacks is drawn as boxes
        figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
