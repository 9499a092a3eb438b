"""Loss spikes: a step whose loss lies far above those before it."""

from __future__ import annotations

import math
from typing import Any

WINDOW = 128
SIGMAS = 6.0
LEAST_SIGMA = 1e-3  # of the mean: where the loss hardly moves, rounding is no spike


class Spikes:
    """Tells a loss that is above mean + 6 sigma of the 128 before it.

    A spike counts among the losses that follow it are measured by, so a loss that stays high is soon no spike.
    """

    def __init__(self) -> None:
        self._losses: list[float] = []
        self._next = 0
        self._sum = self._squares = 0.0
        self.count = 0

    def limit(self) -> float:
        """What a loss must not pass; infinite while fewer than 128 are known."""
        if len(self._losses) < WINDOW:
            return math.inf
        mean = self._sum / WINDOW
        sigma = math.sqrt(max(0.0, self._squares / WINDOW - mean * mean))
        return mean + SIGMAS * max(sigma, LEAST_SIGMA * abs(mean))

    def is_spike(self, loss: float) -> bool:
        """Whether a step's loss is a spike; it is one of the 128 from now on."""
        found = loss > self.limit()
        self.count += found
        if len(self._losses) < WINDOW:
            self._losses.append(loss)
        else:
            old, self._losses[self._next] = self._losses[self._next], loss
            self._sum -= old
            self._squares -= old * old
        self._sum += loss
        self._squares += loss * loss
        self._next = (self._next + 1) % WINDOW
        if self._next == 0:  # afresh, so that rounding does not add up
            self._sum = math.fsum(self._losses)
            self._squares = math.fsum(value * value for value in self._losses)
        return found

    def to_json(self) -> dict[str, Any]:
        """The state, as plain numbers."""
        return {
            "losses": list(self._losses),
            "next": self._next,
            "sum": self._sum,
            "squares": self._squares,
            "count": self.count,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the state that `to_json` gave."""
        self._losses = [float(value) for value in state["losses"]][:WINDOW]
        self._next, self.count = int(state["next"]) % WINDOW, int(state["count"])
        self._sum, self._squares = float(state["sum"]), float(state["squares"])
