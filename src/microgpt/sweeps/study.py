"""Optuna's study of a sweep: a sqlite file in its folder, written by the sweep and by every trial."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microgpt.config.schema import SweepConfig
from microgpt.sweeps.trial import STUDY, read_trial

LOCK_SECONDS = 60
#: by name: what makes a pruner of a sweep's config and the least steps of a trial
PRUNERS: dict[str, Callable[[SweepConfig, int], Any]] = {
    "median": lambda config, least: _pruners().MedianPruner(config.startup_trials, config.prune_after),
    "halving": lambda config, least: _pruners().SuccessiveHalvingPruner(max(least, config.prune_after)),
    "none": lambda config, least: _pruners().NopPruner(),
}


def _pruners() -> Any:
    import optuna

    return optuna.pruners


def open_study(folder: Path, config: SweepConfig, min_steps: int = 1) -> Any:
    """The study of a sweep's folder; made where there is none.

    Args:
        folder: the sweep's.
        config: names the pruner.
        min_steps: the least that successive halving lets a trial train.

    Returns:
        An `optuna.Study` that minimizes the validation loss.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # several trials write at once: each waits for the others
    waits = {"connect_args": {"timeout": LOCK_SECONDS}}
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / STUDY}", engine_kwargs=waits)
    pruner = PRUNERS[config.pruner](config, min_steps)
    return optuna.create_study(
        study_name="sweep", storage=storage, pruner=pruner, direction="minimize", load_if_exists=True
    )


class Reporter:
    """Tells the study of a trial's validations, and asks whether it is worth going on.

    Args:
        trial: an `optuna.Trial`.
        config: of the sweep.
    """

    def __init__(self, trial: Any, config: SweepConfig) -> None:
        self._trial, self._config = trial, config
        self._known: set[int] = set(trial.storage.get_trial(trial._trial_id).intermediate_values)
        self._failing = False

    def is_pruned(self, step: int, loss: float) -> bool:
        """Report a validation loss (nats a token) after a step; whether the trial should end here."""
        try:
            if step not in self._known:  # a resumed trial has told of it already
                self._trial.report(loss if math.isfinite(loss) else 1e9, step)
                self._known.add(step)
            early = self._trial.number < self._config.startup_trials or step <= self._config.prune_after
            return not early and bool(self._trial.should_prune())
        except Exception as error:  # the study is for choosing: training does not end because of it
            if not self._failing:
                print(f"note: the study could not be told ({str(error)[:120]})", file=sys.stderr)
            self._failing = True
            return False


def reporter_of(folder: Path, config: SweepConfig, min_steps: int) -> Reporter | None:
    """The reporter of a run folder; None where it is no trial of a study, or one that the study has closed."""
    note = read_trial(folder)
    if note is None or not note.study or not (folder / note.sweep / STUDY).exists():
        return None
    import optuna

    study = open_study((folder / note.sweep).resolve(), config, min_steps)
    known = {trial.number: trial for trial in study.get_trials(deepcopy=False)}.get(note.number)
    if known is None or known.state.is_finished():
        return None
    return Reporter(optuna.Trial(study, known._trial_id), config)
