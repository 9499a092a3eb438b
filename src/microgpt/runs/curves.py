"""The loss of a run as a picture."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from microgpt.runs.folder import read_metrics

PICTURE = "loss.png"
CURVES = (("train/loss", "train"), ("val/loss", "validation"))


def loss_figure(run: Path) -> Any:
    """Training and validation loss over the steps, as a matplotlib figure.

    Args:
        run: the run folder.

    Returns:
        The figure, or None where the run has no loss yet.
    """
    metrics = read_metrics(run)
    if "train/loss" not in metrics:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for key, label in CURVES:
        points = sorted(metrics.get(key, {}).items())
        axes.plot([p[0] for p in points], [p[1] for p in points], label=label, linewidth=1)
    axes.set_xlabel("step")
    axes.set_ylabel("loss, nats a token")
    axes.legend()
    return figure


def loss_picture(run: Path) -> dict[str, bytes]:
    """The figure as a file: name and content of a PNG, or nothing where the run has no loss."""
    figure = loss_figure(run)
    if figure is None:
        return {}
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return {PICTURE: out.getvalue()}
