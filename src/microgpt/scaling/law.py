"""Loss as a power law of compute: L(C) = E + A C^-alpha, as Kaplan et al. 2020 (arXiv:2001.08361) found it, with the
loss E of the text itself that Hoffmann et al. 2022 (arXiv:2203.15556) added.

The points are those of the best model at each budget, Hoffmann's second approach (IsoFLOP profiles).
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

FEWEST = 3  # points for three unknowns
ALPHAS = np.geomspace(0.01, 2.0, 800)


@dataclass(frozen=True)
class Law:
    """L(C) = floor + scale (C / unit)^-alpha.

    Attributes:
        floor: E, nats a token that no compute removes; at least 0.
        scale: loss above the floor at `unit` operations.
        alpha: the power.
        unit: operations, the geometric mean of the budgets, so that the numbers are of ordinary size.
        residual: root mean square of what the law misses its points by, in nats a token.
    """

    floor: float
    scale: float
    alpha: float
    unit: float
    residual: float

    def loss(self, compute: float) -> float:
        """Nats a token at a number of operations."""
        return self.floor + self.scale * (compute / self.unit) ** -self.alpha

    def to_json(self) -> dict[str, float]:
        """For the prediction's file."""
        return asdict(self)


def fitted(points: Sequence[tuple[float, float]]) -> Law:
    """The law through (operations, loss) points, by least squares: for each alpha of a fine grid the rest is linear.

    Raises:
        ValueError: fewer than three budgets.
    """
    compute, loss = (np.array(column, dtype=np.float64) for column in zip(*points)) if points else (np.empty(0),) * 2
    if len(set(compute.tolist())) < FEWEST:
        raise ValueError(f"a law needs {FEWEST} budgets")
    unit = float(np.exp(np.log(compute).mean()))
    best = Law(float(loss.mean()), 0.0, 1.0, unit, float(loss.std()))
    for alpha in ALPHAS:
        x = (compute / unit) ** -alpha
        spread = float(((x - x.mean()) ** 2).sum())
        scale = float(((x - x.mean()) * (loss - loss.mean())).sum()) / spread
        floor = float(loss.mean() - scale * x.mean())
        if floor < 0:
            floor, scale = 0.0, float((x * loss).sum() / (x * x).sum())
        if scale <= 0:  # more compute never makes the best model worse
            continue
        residual = float(np.sqrt(((floor + scale * x - loss) ** 2).mean()))
        if residual < best.residual:
            best = Law(floor, scale, float(alpha), unit, residual)
    return best


def picture(
    law: Law, runs: Sequence[dict[str, Any]], larger: dict[str, Any], predicted: float, measured: float | None
) -> bytes:
    """A PNG of the runs, the law, its prediction, and what was measured where that is known.

    Args:
        law: as fitted.
        runs: with `depth`, `compute` and `loss`.
        larger: with `depth` and `compute`.
        predicted, measured: the larger model's loss, in nats a token.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.subplots()
    for depth in sorted({r["depth"] for r in runs}):
        mine = sorted((r["compute"], r["loss"]) for r in runs if r["depth"] == depth)
        axes.plot([c for c, _ in mine], [v for _, v in mine], marker="o", linewidth=0.8, label=f"depth {depth}")
    line = np.geomspace(min(r["compute"] for r in runs), larger["compute"] * 1.3, 100)
    words = f"{law.floor:.3g} + {law.scale:.3g} (C / {law.unit:.2g})^-{law.alpha:.2g}"
    axes.plot(line, [law.loss(c) for c in line], color="black", linestyle="--", linewidth=1, label=words)
    label = f"predicted {predicted:.3f}"
    axes.scatter([larger["compute"]], [predicted], marker="x", s=70, color="black", label=label)
    if measured is not None:
        label = f"measured {measured:.3f} (depth {larger['depth']})"
        axes.scatter([larger["compute"]], [measured], marker="*", s=110, color="red", label=label)
    axes.set_xscale("log")
    axes.set_xlabel("operations of training")
    axes.set_ylabel("validation loss, nats a token")
    axes.legend(fontsize=8)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    return out.getvalue()
