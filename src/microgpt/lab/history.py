"""The recorded states of a session on disk: one safetensors file a step, thinned out before they fill it."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from microgpt import files
from microgpt.errors import ModelError
from microgpt.lab.learner import State

BUDGET = 512 << 20


class History:
    """States by step.

    Args:
        folder: made where it is not there; files of it that fit are taken over.
        every: steps between records, doubled whenever the budget is full.
        budget: bytes on disk.
    """

    def __init__(self, folder: Path, every: int, budget: int = BUDGET) -> None:
        self.folder, self.every, self.budget = folder, every, budget
        files.make_folder(folder)
        self.sizes: dict[int, int] = {}
        for path in folder.glob("step-*.safetensors"):
            with suppress(ValueError):
                self.sizes[int(path.stem.removeprefix("step-"))] = path.stat().st_size

    def path(self, step: int) -> Path:
        """The file of a step."""
        return self.folder / f"step-{step:06d}.safetensors"

    @property
    def steps(self) -> list[int]:
        """Recorded steps, in order."""
        return sorted(self.sizes)

    def due(self, step: int) -> bool:
        """Whether this step is to be recorded."""
        return step % self.every == 0 and step not in self.sizes

    def record(self, step: int, state: State) -> None:
        """Write a state; older ones make room for it.

        Raises:
            DiskError: the disk is full.
        """
        content = save(state, metadata={"step": str(step)})
        path = self.path(step)
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise files.disk_error(error, path, len(content)) from error
        self.sizes[step] = len(content)
        while sum(self.sizes.values()) > self.budget and len(self.sizes) > 2:
            self._thin(step)

    def _thin(self, newest: int) -> None:
        self.every *= 2
        first = min(self.sizes)
        for step in [s for s in self.sizes if s % self.every and s not in (first, newest)]:
            self.path(step).unlink(missing_ok=True)
            del self.sizes[step]

    def before(self, step: int) -> int | None:
        """The last recorded step that is not after this one."""
        return max((s for s in self.sizes if s <= step), default=None)

    def load(self, step: int) -> State:
        """A recorded state.

        Raises:
            ModelError: its file is gone or damaged.
        """
        try:
            return load_file(self.path(step))
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the record of step {step} is gone or damaged", "look at another step") from error

    def tensor(self, step: int, name: str) -> Tensor:
        """One tensor of a recorded state.

        Raises:
            ModelError: the file is gone or damaged.
        """
        try:
            with safe_open(self.path(step), "pt") as file:
                return file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            raise ModelError(f"the record of step {step} is gone or damaged", "look at another step") from error

    def adopt(self, other: History, step: int) -> None:
        """Have a record of another session, without a copy where the filesystem lets us."""
        try:
            os.link(other.path(step), self.path(step))
        except OSError:
            self.path(step).write_bytes(other.path(step).read_bytes())
        self.sizes[step] = self.path(step).stat().st_size
