"""Where the time of a training goes, by phase, on top of the profiler hooks that Lightning calls anyway."""

from __future__ import annotations

import csv
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from microgpt.training.lightning import Profiler

#: what the time is spent on; `loop` is the rest: Lightning's own work, and the progress bar's
PHASES: tuple[str, ...] = (
    "data",
    "forward",
    "backward",
    "optimizer",
    "evaluation",
    "logging",
    "samples",
    "checkpoint",
    "loop",
)
FILE = "profile.csv"
#: Lightning's name of a piece of work begins with this: it belongs to that phase
KNOWN = {
    "[Callback]Metrics": "logging",
    "[Callback]Samples": "samples",
    "[Callback]Saving": "checkpoint",
    "save_checkpoint": "checkpoint",
}
_NOTHING = nullcontext()


class Phases(Profiler):
    """Adds up seconds by phase; work inside other work counts once, for the inner one.

    Args:
        device: `cuda` waits for the device at each change, which is what makes the figures true and the run slower.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._sync = torch.cuda.synchronize if device == "cuda" else None
        self._active: list[tuple[str, str]] = []
        self._since: float | None = None

    def _account(self) -> None:
        if self._sync is not None:
            self._sync()
        now = time.perf_counter()
        if self._since is not None:
            self.seconds[self._active[-1][1] if self._active else "loop"] += now - self._since
        self._since = now

    def start(self, action_name: str) -> None:
        """Enter a piece of work, Lightning's or ours; what belongs to no phase is ignored."""
        if phase := _phase(action_name):
            self._account()
            self._active.append((action_name, phase))

    def stop(self, action_name: str) -> None:
        """Leave it."""
        for place in reversed(range(len(self._active))):
            if self._active[place][0] == action_name:
                self._account()
                del self._active[place]
                return

    def begin(self) -> None:
        """Time counts from now on."""
        self._account()

    def end(self) -> dict[str, float]:
        """Time counts no longer; the seconds of each phase."""
        self._account()
        self._since = None
        return self.seconds

    def state_dict(self) -> dict[str, Any]:
        return {}


def _phase(action: str) -> str:
    if action in PHASES:
        return action
    return next((phase for start, phase in KNOWN.items() if action.startswith(start)), "")


def phase(profiler: Phases | None, name: str) -> AbstractContextManager[Any]:
    """Count the block for a phase, where somebody counts."""
    return _NOTHING if profiler is None else profiler.profile(name)


def write(folder: Path, seconds: dict[str, float]) -> list[tuple[str, float, float]]:
    """Write profile.csv; returns its rows: phase, seconds, percent of all."""
    whole = sum(seconds.values()) or 1.0
    rows = [(name, spent, 100 * spent / whole) for name, spent in seconds.items()]
    with open(folder / FILE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("phase", "seconds", "percent"))
        writer.writerows((name, f"{spent:.4f}", f"{share:.2f}") for name, spent, share in rows)
    return rows
