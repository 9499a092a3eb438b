"""Runs beside each other: in what they differ, which is best, and by which measure that can be said."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from microgpt.comparing.compared import BPB, LOSS, Compared, Points, read
from microgpt.runs.find import Run

#: settings that say where and how a run is kept, not what is learned
ASIDE = ("name", "schema_version", "resume", "from_run", "lab")
ASIDE_GROUPS = ("tracking", "hydra", "sampling")


def counts(key: str) -> bool:
    """Whether a setting can have anything to do with the loss."""
    return key not in ASIDE and key.partition(".")[0] not in ASIDE_GROUPS


def scalar(value: Any) -> Any:
    """A setting as a text, a finite number, a truth value or None; whatever else a file holds becomes a text."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else repr(value)
    return json.dumps(value, default=str, skipkeys=True)


@dataclass(frozen=True)
class Comparison:
    """Several runs.

    Attributes:
        runs: best first; those without a finite validation loss stand last.
        by_bytes: whether they are measured in bits a byte, because their tokenizers differ.
    """

    runs: list[Compared]
    by_bytes: bool

    def top(self, count: int) -> Comparison:
        """The best so many of the runs; all for 0."""
        return Comparison(self.runs[:count], self.by_bytes) if count else self

    @property
    def measure(self) -> str:
        """The metric that runs are ordered by."""
        return BPB if self.by_bytes else LOSS

    @property
    def unit(self) -> str:
        """Its unit, in words."""
        return "bits a byte" if self.by_bytes else "nats a token"

    def score(self, run: Compared) -> float | None:
        """The best validation of a run in the measure; None where it has none."""
        return run.best_bpb if self.by_bytes else run.best_loss

    def scale(self, run: Compared) -> float | None:
        """What turns a run's loss into the measure: 1, or the bits a byte that a nat a token is in its validation."""
        if not self.by_bytes:
            return 1.0
        loss, bits = run.best_loss, run.best_bpb
        return bits / loss if loss and bits is not None else None

    def validations(self, run: Compared) -> Points:
        """(step, value in the measure) of every finite validation."""
        return run.points(self.measure)

    @cached_property
    def scored(self) -> list[Compared]:
        """The runs that have a score, best first."""
        return [run for run in self.runs if self.score(run) is not None]

    def value(self, run: Compared, key: str) -> Any:
        """A setting of a run: from its config, or as it was asked for where the run got no further."""
        return scalar(run.config.get(key, run.words.get(key)))

    @cached_property
    def differing(self) -> list[str]:
        """The settings in which the runs differ: those that were asked for first, then what followed from them."""
        known = [run for run in self.runs if run.config]
        keys = dict.fromkeys(key for run in known for key in run.config if counts(key))
        found = [key for key in keys if len({_text(scalar(run.config.get(key))) for run in known}) > 1]
        asked = self.swept
        return [*(k for k in asked if k not in found), *(k for k in asked if k in found),
                *(k for k in found if k not in asked)]  # fmt: skip

    @cached_property
    def swept(self) -> list[str]:
        """What was varied: overrides with other words in other runs. A group's choice, as `model`, is one of them."""
        keys = dict.fromkeys(key for run in self.runs for key in run.words if counts(key))
        return [key for key in keys if len({_text(self.value(run, key)) for run in self.runs}) > 1]

    @cached_property
    def explaining(self) -> list[str]:
        """The settings that may explain the loss: what was varied, or whatever differs where nothing was asked."""
        return self.swept or self.differing

    @cached_property
    def notes(self) -> list[str]:
        """What a reader must know before trusting the order."""
        found: list[str] = []
        if self.by_bytes:
            found.append(
                "The runs have different tokenizers, so their losses in nats a token do not compare. They are "
                "ordered and drawn by bits a byte of the same text; the training loss is converted with the bytes "
                "a token that each run's validation set has."
            )
        if len({_data(run) for run in self.runs if _data(run)}) > 1:
            found.append(
                "The runs were trained on different data. Their validation sets are different texts, and no loss "
                "compares over them."
            )
        for status, words in (
            ("RUNNING", "still running"),
            ("KILLED", "stopped before the end"),
            ("PRUNED", "ended early by their sweep"),
            ("FAILED", "failed"),
        ):
            count = sum(run.status == status for run in self.runs)
            if count:
                found.append(f"{count} of {len(self.runs)} runs {words}, shown with what was reached.")
        without = len(self.runs) - len(self.scored)
        if without:
            found.append(f"{without} of {len(self.runs)} runs without {self.measure}, at the end of the table.")
        machines = {(run.run.facts.get("host"), run.run.facts.get("device")) for run in self.scored}
        if len(machines) > 1:
            found.append("The runs come from different machines or devices, so their seconds compare only roughly.")
        return found


def _text(value: Any) -> str:
    return json.dumps(value)


def _data(run: Compared) -> str:
    data: Any = run.run.facts.get("data")
    return str(data.get("fingerprint", "")) if isinstance(data, dict) else ""


def _tokenizer(run: Compared) -> tuple[str, ...]:
    """What makes two tokenizers the same: kind and size, and for all but cl100k the text they come from."""
    kind = str(run.config.get("tokenizer.kind", ""))
    return (kind, str(run.run.facts.get("vocab_size", "")), "" if kind == "cl100k" else _data(run))


def compared(runs: list[Run], progress: Callable[[Iterable[Run]], Iterable[Run]] = lambda runs: runs) -> Comparison:
    """Read runs and order them.

    Args:
        runs: what is compared.
        progress: wraps the runs while they are read, to show how far it is.
    """
    found = [read(run) for run in progress(runs)]
    learned = [run for run in found if run.best_loss is not None]
    tokenizers = len({_tokenizer(run) for run in learned}) > 1
    comparison = Comparison(found, tokenizers and any(run.best_bpb is not None for run in learned))

    def place(run: Compared) -> float:
        score = comparison.score(run)
        return math.inf if score is None else score

    return Comparison(sorted(found, key=place), comparison.by_bytes)
