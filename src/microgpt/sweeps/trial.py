"""What a training process knows of the sweep that it is a trial of: a note in its folder, written by the sweep.

A note is all that passes between the two, so it makes no difference whether the trial runs in the sweep's own
process, in another, or on another machine that sees the same folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from microgpt import files
from microgpt.checkpoints.folder import checkpoints_in
from microgpt.config.build import flat
from microgpt.config.schema import TrainConfig
from microgpt.errors import Stopped
from microgpt.runs.find import Run
from microgpt.runs.folder import METRICS, RUN, SAMPLES, read_run
from microgpt.runtime import StopSignals
from microgpt.tracking.start import PARENT

NOTE, STOP, STUDY = "trial.json", ".stop", "study.db"
#: settings that do not change what is trained
ELSEWHERE = ("tracking.", "sweep.", "resume", "name")
LOOK_SECONDS = 0.3


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep.

    Attributes:
        number: counted from 0.
        key: of its settings, see `settings_key`.
        swept: `key=value` of what was swept.
        sweep: the sweep's folder, seen from the trial's.
        parent: the sweep's MLflow run, or nothing.
        study: whether it reports to the study in the sweep's folder.
        quiet: whether it shares the terminal with others.
        threads: CPU threads where the config leaves them open; 0 leaves it so.
    """

    number: int
    key: str
    swept: list[str] = field(default_factory=list)
    sweep: str = ".."
    parent: str = ""
    study: bool = False
    quiet: bool = False
    threads: int = 0

    def write(self, folder: Path) -> None:
        """Put the note into a trial's folder."""
        files.make_folder(folder)
        files.write_json(folder / NOTE, asdict(self))


def read_trial(folder: Path) -> Trial | None:
    """The note of a run folder; None where it is no trial."""
    with suppress(OSError, ValueError, TypeError):
        return Trial(**files.read_json(folder / NOTE))
    return None


def settings_key(config: TrainConfig) -> str:
    """Equal for two configs that train the same: a checksum of what differs from the schema's defaults."""
    default = flat(TrainConfig())
    told = {k: v for k, v in flat(config).items() if v != default[k] and not k.startswith(ELSEWHERE)}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def standing(folder: Path) -> str:
    """How the run in a trial's folder stands; nothing where there is none yet."""
    return Run(folder, read_run(folder)).status if (folder / RUN).exists() else ""


def claim(config: TrainConfig, folder: Path) -> Trial | None:
    """What the folder of a run says of a sweep; a trial that was interrupted is told to go on where it stood.

    Args:
        config: gets `resume` where there is a checkpoint to go on from.
        folder: Hydra's output folder.

    Raises:
        Stopped: the sweep has been told to end.
    """
    trial = read_trial(folder)
    if trial is None:
        return None
    if trial.parent:
        os.environ[PARENT] = trial.parent
    refuse_stopped(trial, folder)
    if checkpoints_in(folder / "checkpoints"):
        config.resume, config.from_run = os.path.relpath(folder), ""
    if not config.device.threads:
        config.device.threads = trial.threads
    return trial


def start_over(folder: Path) -> None:
    """Forget the lines of an interrupted trial that has no checkpoint; its MLflow run is the same again."""
    for name in (METRICS, SAMPLES, "eval.csv", "system.csv"):
        (folder / name).unlink(missing_ok=True)


def stop_asked(trial: Trial, folder: Path) -> str:
    """The name of the signal that ends the sweep, or nothing."""
    with suppress(OSError):
        return (folder / trial.sweep / STOP).read_text(encoding="utf-8").strip()
    return ""


def refuse_stopped(trial: Trial, folder: Path) -> None:
    """Do not begin a trial of a sweep that has been told to end.

    Raises:
        Stopped: it has.
    """
    name = stop_asked(trial, folder)
    if name:
        raise Stopped(name, f"trial {trial.number} before its first step", "start the sweep again")


@contextmanager
def heeding(trial: Trial | None, folder: Path, signals: StopSignals) -> Generator[None]:
    """While the block runs, the end of the sweep is to the trial as if it had got the signal itself."""
    if trial is None:
        yield
        return
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_SECONDS):
            name = stop_asked(trial, folder)
            if name:
                signals.requested = signals.requested or name
                return

    watcher = threading.Thread(target=look, name="sweep", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
