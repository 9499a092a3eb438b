"""What passes between a sweep and whoever chooses its trials."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Proposal:
    """Settings to train with.

    Attributes:
        overrides: all words of the trial.
        swept: those of them that were chosen for it.
        number: which trial it is, where that is known; -1 leaves it to the sweep.
    """

    overrides: list[str]
    swept: list[str]
    number: int = -1


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: as in run.json.
        val_loss: best validation loss in nats a token, infinity where there is none.
    """

    status: str
    val_loss: float


class Chooser(Protocol):
    """Chooses trials.

    Attributes:
        total: how many there will be.
    """

    total: int

    def next(self) -> list[Proposal]:
        """The trials to run now; empty at the end."""
        ...

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Hear how a trial ended; KILLED ones will be told of again."""
        ...
