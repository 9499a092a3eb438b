"""A run of `microgpt.train`, running or ended, as a session: its metrics as they come, its checkpoints as states."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microgpt import files
from microgpt.checkpoints.folder import OPTIMIZER, STATE, WEIGHTS, checkpoints_in, verify
from microgpt.checkpoints.tensors import read_arrays, read_header
from microgpt.errors import ModelError
from microgpt.lab.history import History
from microgpt.lab.learner import State
from microgpt.lab.recipe import of_run
from microgpt.lab.record import STATES
from microgpt.lab.studio import Studio
from microgpt.runs.find import Run
from microgpt.runs.folder import METRICS, RUNNING, read_lines, read_run
from microgpt.training.schedule import Schedule, from_json

Row = list[float | None]
KEYS = ("train/loss", "train/lr", "train/grad_norm", "perf/step_ms", "progress/tokens", "val/loss")


def tensors_in(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that is not trusted."""
    header, start = read_header(path)
    return {name: torch.from_numpy(array) for name, array in read_arrays(path, header, start).items()}


class Checkpoints(History):
    """A run's checkpoints in the shape of a session's records; nothing of the run is written to.

    Args:
        run: its folder.
    """

    def __init__(self, run: Path) -> None:
        self.run = run
        self.scratch = tempfile.TemporaryDirectory(prefix="microgpt-lab-")
        super().__init__(Path(self.scratch.name), 1)
        self._checkpoints: dict[int, Path] = {}
        self._states: History | None = None
        self.look_again()

    def look_again(self) -> bool:
        """Find new checkpoints; whether the last one is another."""
        before = max(self.sizes, default=-1)
        own = self.run / STATES
        if own.is_dir():  # a session of the lab has recorded its states
            self._states = History(own, 1)
            self.sizes = dict(self._states.sizes)
        else:
            self._checkpoints = dict(checkpoints_in(self.run / "checkpoints"))
            self.sizes = {step: 0 for step, path in self._checkpoints.items() if (path / OPTIMIZER).exists()}
        return max(self.sizes, default=-1) != before

    def due(self, step: int) -> bool:
        return False

    def load(self, step: int) -> State:
        if self.path(step).exists():  # recorded for a fork
            return super().load(step)
        if self._states is not None:
            return self._states.load(step)
        folder = self._checkpoints[step]
        verify(folder)
        try:
            progress: Any = files.read_json(folder / STATE)["progress"]
            state = tensors_in(folder / OPTIMIZER)
            weights = tensors_in(folder / WEIGHTS)
            trained = {n.removeprefix("trained."): t for n, t in state.items() if n.startswith("trained.")}
            state |= {f"weights.{n}": t for n, t in (trained or weights).items()}
            state["counts"] = torch.tensor([int(progress[k]) for k in ("step", "tokens", "bad_steps")])
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ModelError(f"the checkpoint of step {step} cannot be read", "look at another step") from error
        return state

    def tensor(self, step: int, name: str) -> Tensor:
        if self._states is not None:
            return self._states.tensor(step, name)
        return tensors_in(self._checkpoints[step] / WEIGHTS)[name.removeprefix("weights.")]

    def schedule(self) -> Schedule | None:
        """The learning rate of the run as its last checkpoint has it; None where it is as configured."""
        if self._states is not None or not self.sizes:
            return None
        with suppress(KeyError, OSError, TypeError, ValueError):
            return from_json(files.read_json(self._checkpoints[max(self.sizes)] / STATE)["progress"]["schedule"])
        return None


class Follower(Studio):
    """The inside of a run: what is live is its last checkpoint.

    Args:
        run: its folder.

    Raises:
        MicrogptError: the run cannot be read, or has no checkpoint yet.
    """

    def __init__(self, run: Path) -> None:
        super().__init__(of_run(run), Checkpoints(run))
        self.run = run
        self._offset = 0
        self._last = 0
        self._open: dict[int, dict[str, Any]] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take the newest checkpoint."""
        assert isinstance(self.history, Checkpoints)
        schedule = self.history.schedule()
        if schedule is not None:
            self.live.schedule = schedule
            if self._shadow is not None:
                self._shadow.schedule = schedule
        self.live.restore(self.history.load(max(self.history.sizes)))

    def poll(self) -> tuple[list[Row], bool]:
        """Rows that are new, in order, and whether there is a new checkpoint. A later row of a step replaces it."""
        rows = list(self._rows())
        assert isinstance(self.history, Checkpoints)
        newer = self.history.look_again()
        if newer:
            self.refresh()
        return rows, newer

    def _rows(self) -> Iterator[Row]:
        found: dict[int, dict[str, Any]] = {}
        for offset, line in read_lines(self.run / METRICS, self._offset):
            self._offset = offset
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                step = int(line["step"])
                known = self._open.get(step, {})
                found.setdefault(step, dict(known)).update(dict(line["metrics"]))
        for step in sorted(found):
            if step >= self._last and step:
                self._last = step
                self._open = {step: found[step]}
                values = [found[step].get(key) for key in KEYS]
                yield [step, *(v if isinstance(v, (int, float)) else None for v in values)]

    @property
    def running(self) -> bool:
        """Whether the run goes on."""
        return Run(self.run, read_run(self.run)).status == RUNNING
