"""`sweep=optuna`: each trial's values are chosen from those of the trials before it.

The sampler is the tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for hyper-parameter
optimization"); pruning is by the median, or by asynchronous successive halving (Li et al. 2018, "A system for
massively parallel hyperparameter tuning").
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from microgpt.config.build import settings, value_problem
from microgpt.config.schema import SweepConfig, TrainConfig
from microgpt.errors import UsageError
from microgpt.runs.folder import FINISHED, KILLED, PRUNED
from microgpt.sweeps.proposal import Outcome, Proposal
from microgpt.sweeps.study import open_study

#: by name: what makes a sampler of the number of random trials and a seed
SAMPLERS: dict[str, Callable[[int, int], Any]] = {
    "tpe": lambda random, seed: _samplers().TPESampler(n_startup_trials=random, seed=seed),
    "random": lambda random, seed: _samplers().RandomSampler(seed=seed),
}


def _samplers() -> Any:
    import optuna

    return optuna.samplers


def distribution(word: Any) -> Any:
    """What Optuna draws from for one swept override, as Hydra parsed it.

    Choices are kept as they were typed; `interval(a,b)` is drawn evenly, in the logarithm with `tag(log, ...)`, and
    in whole numbers for a setting that takes those; `range(a,b,step)` leaves out b, as in Python.

    Raises:
        UsageError: an end lies outside of the setting's range.
    """
    from hydra.core.override_parser.types import IntervalSweep, RangeSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value, key, typed = word.value(), word.get_key_element(), word.input_line
    item = settings(TrainConfig).get(key)
    log = "log" in value.tags
    try:
        if isinstance(value, IntervalSweep):
            if item is None or item.base not in (int, float):
                raise UsageError(f"{typed}: an interval needs a setting that is a number", "use choice(...)")
            low, high = float(value.start or 0), float(value.end or 0)
            whole = item.base is int
            ends = (math.ceil(low), math.floor(high)) if whole else (low, high)
            problem = next((p for end in ends if (p := value_problem(item, end))), "")
            if problem:
                raise UsageError(f"{typed}: {problem}", "keep the interval inside that range")
            return IntDistribution(*map(int, ends), log=log) if whole else FloatDistribution(low, high, log=log)
        choices = list(word.sweep_string_iterator())
        if not isinstance(value, RangeSweep) or value.step < 0 or len(choices) < 2:
            return CategoricalDistribution(choices)
        numbers = [float(c) for c in choices]
        if all(n.is_integer() for n in (*numbers, float(value.step))):
            return IntDistribution(int(numbers[0]), int(numbers[-1]), log=log, step=int(value.step))
        return FloatDistribution(numbers[0], numbers[-1], log=log, step=None if log else float(value.step))
    except ValueError as error:
        raise UsageError(f"{typed}: {error}", "correct the interval") from None


def space_of(words: list[Any]) -> dict[str, Any]:
    """Key to distribution of all that is swept.

    Raises:
        UsageError: Optuna is not installed, nothing is swept, or an interval is wrong.
    """
    if importlib.util.find_spec("optuna") is None:
        raise UsageError("sweep=optuna: Optuna is not installed", "pip install 'microgpt[sweep]'")
    space = {word.get_key_element(): distribution(word) for word in words if word.is_sweep_override()}
    if not space:
        raise UsageError(
            "sweep=optuna: nothing is swept over",
            "give a key several values: 'optimizer.learning_rate=tag(log,interval(1e-4,1e-1))'",
        )
    return space


class Search:
    """Trials that a study chooses, and those of a sweep that was interrupted first.

    Args:
        words: the command line's overrides as Hydra parsed them.
        space: what is drawn from, see `space_of`.
        config: of the sweep.
        folder: of the sweep; the study lies in it.
        parallel: trials chosen at a time.
    """

    def __init__(
        self, words: list[Any], space: dict[str, Any], config: SweepConfig, folder: Path, parallel: int
    ) -> None:
        self.study = open_study(folder, config)
        self._words, self._space, self._config, self._parallel = words, space, config, parallel
        self.total = config.trials
        from optuna.trial import TrialState

        self._states = TrialState
        known: list[Any] = self.study.get_trials(deepcopy=False)
        self._open = [self._proposal(t) for t in known if t.state == TrialState.RUNNING]
        self._asked = len(known)

    def _proposal(self, trial: Any) -> Proposal:
        values = {key: repr(v) if isinstance(v, float) else str(v) for key, v in trial.params.items()}
        swept = [f"{key}={values[key]}" for key in self._space]
        words = [
            f"{w.get_key_element()}={values[w.get_key_element()]}" if w.is_sweep_override() else w.input_line
            for w in self._words
        ]
        return Proposal(words, swept, trial.number)

    def next(self) -> list[Proposal]:
        """The trials to run now; empty at the end."""
        given, self._open = self._open[: self._parallel], self._open[self._parallel :]
        while len(given) < self._parallel and self._asked < self.total:
            # seeded by the trial's number: a sweep that is started again does not draw the same values again
            seed = (self._config.seed + 1_000_003 * self._asked) % 2**32
            self.study.sampler = SAMPLERS[self._config.sampler](self._config.startup_trials, seed)
            given.append(self._proposal(self.study.ask(self._space)))
            self._asked += 1
        return given

    def tell(self, proposal: Proposal, outcome: Outcome) -> None:
        """Hear how a trial ended; one that was interrupted stays open in the study."""
        if outcome.status == KILLED:
            return
        if outcome.status == PRUNED:
            self.study.tell(proposal.number, state=self._states.PRUNED, skip_if_finished=True)
        elif outcome.status == FINISHED and math.isfinite(outcome.val_loss):
            self.study.tell(proposal.number, outcome.val_loss, skip_if_finished=True)
        else:
            self.study.tell(proposal.number, state=self._states.FAIL, skip_if_finished=True)
