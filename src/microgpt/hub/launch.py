"""Processes that outlive the hub: training runs, sweeps and other stages, each on its own."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from microgpt.runs.find import all_runs

STAGES = ("train", "validate", "evaluate", "export")
AGAIN_S = 2.0  # a second x sooner than this is a slip


@dataclass(frozen=True)
class Note:
    """What became of a process.

    Attributes:
        text: for the user; nothing where there is nothing to say.
        folder: a run folder that has just come to be.
        failed: whether it ended badly.
    """

    text: str
    folder: Path | None = None
    failed: bool = False


@dataclass
class Child:
    """A process that was started here.

    Attributes:
        stage: what runs.
        log: what it prints.
        folders: run folders that it has made; a sweep makes several.
        then: told the exit code and the printed text at its end.
    """

    stage: str
    process: subprocess.Popen[bytes]
    log: Path
    folders: list[Path] = field(default_factory=list[Path])
    then: Callable[[int, str], None] | None = None


def tail(path: Path, count: int = 12) -> list[str]:
    """The last lines of a file."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 16384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
    return [line.rstrip() for line in plain.splitlines() if line.strip()][-count:]


class Launcher:
    """Starts and stops processes, and tells what becomes of them.

    Args:
        outputs: where run folders appear.
    """

    def __init__(self, outputs: Path) -> None:
        self.outputs = outputs
        self.children: list[Child] = []
        self._asked: dict[Path, float] = {}
        self._started = 0

    def start(self, stage: str, words: Sequence[str], then: Callable[[int, str], None] | None = None) -> Child:
        """Start `python -m microgpt.<stage> ...` in a session of its own: it lives on when the hub goes."""
        folder = self.outputs / ".hub"
        folder.mkdir(parents=True, exist_ok=True)
        self._started += 1
        log = folder / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{self._started}.log"
        with open(log, "wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", f"microgpt.{stage}", *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "COLUMNS": "100", "PYTHONUNBUFFERED": "1"},
            )
        child = Child(stage, process, log, then=then)
        self.children.append(child)
        return child

    def poll(self) -> list[Note]:
        """What has happened since the last time."""
        notes: list[Note] = []
        for child in list(self.children):
            code = child.process.poll()
            if child.stage == "train":
                notes += self._new_folders(child)
            if code is None:
                continue
            self.children.remove(child)
            printed = "\n".join(tail(child.log, 40))
            if child.then is not None:
                child.then(code, printed)
            if child.stage == "train":
                notes.append(self._ended(child, code))
            if child.log.parent.name == ".hub":
                child.log.unlink(missing_ok=True)
        return notes

    def _new_folders(self, child: Child) -> list[Note]:
        notes: list[Note] = []
        if child.folders and child.log.parent.name != ".hub" and "-m" not in _words(child):
            return notes
        for run in all_runs(self.outputs):
            if run.facts.get("pid") == child.process.pid and run.path not in child.folders:
                child.folders.append(run.path)
                if child.log.parent.name == ".hub":
                    child.log = _moved(child.log, run.path)
                notes.append(Note(f"started {run.path}", run.path))
        return notes

    def _ended(self, child: Child, code: int) -> Note:
        what = str(child.folders[-1]) if child.folders else "the run"
        if code == 0:
            return Note(f"finished: {what}")
        if code in (130, 143, -signal.SIGINT, -signal.SIGTERM):
            return Note(f"stopped: {what}")
        last = tail(child.log, 4)
        return Note("\n".join([f"{what} failed (exit {code})", *last]), failed=True)

    def stop(self, folder: Path) -> str:
        """Ask the process of a run to save and stop; asked again, it stops at once.

        Returns:
            What to tell the user.
        """
        try:
            held = (folder / ".lock").read_text(encoding="utf-8", errors="replace")
        except OSError:
            held = ""
        found = re.fullmatch(r"pid (\d+) on (.+)", held.strip())
        if found is None:
            return "it is not known which process trains this run"
        if found[2] != socket.gethostname():
            return f"this run is trained on {found[2]}: stop it there"
        since = time.monotonic() - self._asked.get(folder, -1e9)
        if since < AGAIN_S:
            return "it has heard; it saves, then stops"
        first = folder not in self._asked
        self._asked[folder] = time.monotonic()
        with suppress(ProcessLookupError):
            os.kill(int(found[1]), signal.SIGINT)
        return (
            "saving, then stopping; x again ends it at once"
            if first
            else "stopped at once; the last checkpoint stands"
        )


def _words(child: Child) -> list[str]:
    return [str(word) for word in child.process.args] if isinstance(child.process.args, list) else []


def _moved(log: Path, folder: Path) -> Path:
    """Put what a process prints into its run folder; it goes on printing there."""
    number = 1
    while (target := folder / (f"console-{number}.log" if number > 1 else "console.log")).exists():
        number += 1
    with suppress(OSError):
        os.rename(log, target)
        return target
    return log
