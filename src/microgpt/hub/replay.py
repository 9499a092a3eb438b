"""A run played again from its first step, as it was written."""

from __future__ import annotations

from microgpt.hub.watch import Watched

SECONDS = 20.0  # that a run lasts at speed 1
SPEEDS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


class Replay:
    """Moves the limit of a watched run.

    Args:
        run: what is played.

    Attributes:
        playing: whether it moves.
        speed: of SPEEDS.
    """

    def __init__(self, run: Watched) -> None:
        self.run = run
        self.last = max((s.steps[-1] for s in run.series.values() if s.steps), default=0)
        self._at = float(min((s.steps[0] for s in run.series.values() if s.steps), default=0))
        self.playing, self.speed = True, 1.0
        run.limit = int(self._at)

    @property
    def done(self) -> bool:
        """Whether it has come to the end."""
        return self._at >= self.last

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if self.playing:
            self._at = min(self.last, self._at + seconds * self.speed * self.last / SECONDS)
            self.run.limit = int(self._at)

    def faster(self, by: int) -> None:
        """The next or the previous speed."""
        at = SPEEDS.index(self.speed) + by
        self.speed = SPEEDS[max(0, min(len(SPEEDS) - 1, at))]

    def end(self) -> None:
        """Show all of the run again."""
        self.run.limit = None

    def line(self, width: int) -> str:
        """How far it is, in so many columns."""
        share = self._at / self.last if self.last else 1.0
        told = f"replay {self.speed:g}x  step {int(self._at):,} of {self.last:,} "
        room = max(4, width - len(told) - 4)
        full = round(share * room)
        return f"{'▶' if self.playing else '■'} {told}{'━' * full}{'─' * (room - full)}"
