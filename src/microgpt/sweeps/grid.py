"""`sweep=basic`: every combination of the values."""

from __future__ import annotations

import itertools
from typing import Any

from microgpt.errors import UsageError
from microgpt.sweeps.proposal import Outcome, Proposal


class Grid:
    """All trials at once.

    Args:
        words: the command line's overrides as Hydra parsed them.

    Attributes:
        proposals: the trials.

    Raises:
        UsageError: a value is one that only Optuna can choose from.
    """

    def __init__(self, words: list[Any]) -> None:
        axes: list[list[tuple[str, bool]]] = []
        for word in words:
            if not word.is_sweep_override():
                axes.append([(word.input_line, False)])
            elif word.is_discrete_sweep():
                key = word.get_key_element()
                axes.append([(f"{key}={value}", True) for value in word.sweep_string_iterator()])
            else:
                raise UsageError(f"{word.input_line}: an interval needs sweep=optuna", "or list values with commas")
        self.proposals = [
            Proposal([w for w, _ in chosen], [w for w, swept in chosen if swept])
            for chosen in itertools.product(*axes)
        ]
        self.total = len(self.proposals)
        self._given = False

    def next(self) -> list[Proposal]:
        """The trials to run now; empty at the end."""
        given, self._given = self._given, True
        return [] if given else self.proposals

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Nothing is learned from how a trial ended."""
