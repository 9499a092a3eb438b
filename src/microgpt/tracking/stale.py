"""MLflow runs that say RUNNING though their process is dead: the next start on this machine ends them.

`python -m microgpt.tracking.stale RUN_FOLDER...` sends what is missing of such runs, and how they ended.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.runs.find import MLFLOW, Run
from microgpt.runs.folder import KILLED

FOLDER, HOST, PID = "microgpt.run_folder", "microgpt.host", "microgpt.pid"
AT_MOST = 100
#: of a run folder: held by the process that feeds it
LOCK = ".mlflow.lock"


def owner_tags(pid: int) -> dict[str, str]:
    """Tags that say whose a run is, so that a later start can tell whether it was left behind."""
    return {HOST: socket.gethostname(), PID: str(pid)}


def is_alive(pid: str) -> bool:
    """Whether a process of this machine is there; what is no number is not."""
    try:
        os.kill(int(pid), 0)
    except (ValueError, OverflowError, ProcessLookupError):
        return False
    except PermissionError:  # somebody else's, so it is there
        return True
    return True


def mend(client: Any, experiment: str) -> list[Path]:
    """End the runs of an experiment that were left RUNNING on this machine.

    A run without a folder (a sweep, or one whose folder was deleted) is ended here; of the others the folders are
    returned, since their last metrics may be missing too.
    """
    mine = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{socket.gethostname()}'"
    folders: list[Path] = []
    for run in client.search_runs([experiment], mine, max_results=AT_MOST):
        tags: dict[str, str] = run.data.tags
        folder = Path(tags.get(FOLDER, ""))
        if FOLDER in tags and (folder / MLFLOW).exists() and Run(folder, {}).mlflow_id == run.info.run_id:
            if not files.is_locked(folder) and not files.is_locked(folder, LOCK):
                folders.append(folder)
        elif FOLDER in tags or (PID in tags and not is_alive(tags[PID])):
            client.set_terminated(run.info.run_id, KILLED)
    return folders


def send_rest(folders: list[Path]) -> None:
    """Start a process that sends what is missing of the runs and ends them; nobody waits for it."""
    if folders:
        subprocess.Popen(
            [sys.executable, "-m", "microgpt.tracking.stale", *map(str, folders)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )


def main(folders: list[str]) -> None:
    """Send the rest of each run, unless somebody else is at it or has done it."""
    from microgpt.tracking.feeder import RunFeeder

    for folder in map(Path, folders):
        with files.waiting_lock(folder / LOCK, wait=False) as ours:
            if ours and RunFeeder(folder).is_open():
                RunFeeder(folder).run()


if __name__ == "__main__":
    main(sys.argv[1:])
