"""Run folders that were deleted, until the hub is left: deleting can be undone."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from microgpt import files
from microgpt.errors import BusyError, ModelError


class Trash:
    """Keeps deleted run folders beside the others, where nothing lists them.

    Args:
        outputs: where the runs are.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.folder = outputs / ".trash"
        self._kept: list[tuple[Path, Path]] = []

    def put(self, run: Path) -> None:
        """Delete a run folder, for now.

        Raises:
            BusyError: the run is going on.
            ModelError: it could not be moved.
        """
        if files.is_locked(run):
            raise BusyError(f"{run.name} is going on", "stop it first")
        place = self.folder / f"{time.time_ns()}-{os.getpid()}" / "of" / "runs" / run.name
        try:
            place.parent.mkdir(parents=True)
            os.rename(run, place)
        except OSError as error:
            raise ModelError(f"{run} cannot be deleted ({error.strerror})", "see the folder's permissions") from error
        self._kept.append((run, place))

    def undo(self) -> Path | None:
        """Bring the run that was deleted last back; None where there is none.

        Raises:
            ModelError: it cannot be moved back.
        """
        if not self._kept:
            return None
        run, place = self._kept[-1]
        try:
            run.parent.mkdir(parents=True, exist_ok=True)
            os.rename(place, run)
        except OSError as error:
            raise ModelError(f"{run} cannot be brought back ({error.strerror})", f"it is in {place}") from error
        self._kept.pop()
        shutil.rmtree(place.parents[2], ignore_errors=True)
        return run

    def empty(self) -> None:
        """Delete for good what was deleted here."""
        for _, place in self._kept:
            shutil.rmtree(place.parents[2], ignore_errors=True)
        self._kept.clear()
        with suppress(OSError):
            self.folder.rmdir()
