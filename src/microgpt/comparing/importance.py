"""Which setting explains the best loss of runs.

A random forest (Breiman 2001, "Random forests", Machine Learning 45) learns from the settings of a run where it
stands among the others. A setting is as important as the forest gets worse when that setting's values are shuffled
among the runs (permutation importance, section 10 there). The forest sees the place of a run and not its loss, so
that a single diverged run does not decide everything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: with fewer runs a forest tells noise
FEWEST = 8
TREES = 200
SHUFFLES = 20


@dataclass(frozen=True)
class Weight:
    """How much one setting tells.

    Attributes:
        key: the setting.
        share: its part of the importance of all settings, 0 to 1; None where there are too few runs for a forest.
        correlation: Spearman's rank correlation with the loss, -1 to 1 (below 0: larger values have lower losses);
            None where the values are no numbers or all alike.
        values: how many values it had.
        best: its value in the best run.
    """

    key: str
    share: float | None
    correlation: float | None
    values: int
    best: Any


@dataclass(frozen=True)
class Importance:
    """The settings, the most important first.

    Attributes:
        weights: one a setting.
        fit: R2 of the forest on the runs that each tree has not seen (out of bag); below 0.3 or so its shares say
            little. None without a forest.
        runs: how many runs it is made from.
    """

    weights: list[Weight]
    fit: float | None
    runs: int


def ranks(values: Sequence[float]) -> np.ndarray:
    """The place of each value among all, from 0; equal values share the mean of their places."""
    import numpy as np

    _, inverse, counts = np.unique(np.asarray(values, float), return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


def _numeric(column: Sequence[Any]) -> list[float] | None:
    """A column of numbers, or None where a value is none."""
    if all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in column):
        return [float(v) for v in column]
    return None


def _coded(column: Sequence[Any]) -> list[float]:
    """A column for a forest: numbers as they are, other values by their number in alphabetical order."""
    numbers = _numeric(column)
    if numbers is not None:
        return numbers
    texts = [json.dumps(value) for value in column]
    order = {text: float(i) for i, text in enumerate(sorted(set(texts)))}
    return [order[text] for text in texts]


def importance(columns: Mapping[str, Sequence[Any]], scores: Sequence[float]) -> Importance:
    """What the settings have to do with the scores.

    Args:
        columns: setting to its value in each run.
        scores: the best loss of each run, in the same order.
    """
    import numpy as np

    columns = {key: column for key, column in columns.items() if len({json.dumps(v) for v in column}) > 1}
    if not columns or len(scores) < 2:
        return Importance([], None, len(scores))
    places = ranks(scores)
    shares, fit = _forest(np.array([_coded(c) for c in columns.values()]).T, places) if len(scores) >= FEWEST else (
        [None] * len(columns), None)  # fmt: skip
    best = int(np.argmin(places))
    weights: list[Weight] = []
    for (key, column), share in zip(columns.items(), shares):
        numbers = _numeric(column)
        correlated = None
        if numbers is not None and np.ptp(places) > 0:
            correlated = float(np.corrcoef(ranks(numbers), places)[0, 1])
        count = len({json.dumps(v) for v in column})
        weights.append(Weight(key, share, correlated, count, column[best]))
    weights.sort(key=lambda w: -(w.share if w.share is not None else abs(w.correlation or 0.0)))
    return Importance(weights, fit, len(scores))


def _forest(table: np.ndarray, places: np.ndarray) -> tuple[list[float | None], float | None]:
    """The share of each column of table (runs, settings), and the fit out of bag."""
    import numpy as np

    if np.ptp(places) == 0:
        return [None] * table.shape[1], None
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(n_estimators=TREES, oob_score=True, random_state=0).fit(table, places)
    draw = np.random.default_rng(0)
    before = np.mean((forest.predict(table) - places) ** 2)
    worse = np.zeros(table.shape[1])
    for column in range(table.shape[1]):
        # all shuffles in one call: a forest's calls cost more than its rows
        many = np.tile(table, (SHUFFLES, 1))
        many[:, column] = np.concatenate([draw.permutation(table[:, column]) for _ in range(SHUFFLES)])
        error = np.mean((forest.predict(many) - np.tile(places, SHUFFLES)) ** 2)
        worse[column] = max(0.0, error - before)
    total = float(worse.sum())
    return [float(w) / total if total > 0 else 0.0 for w in worse], float(forest.oob_score_)
