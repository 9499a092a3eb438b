"""Starting what feeds MLflow, without importing MLflow: training never waits for it nor shares its interpreter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from microgpt.config.schema import TrackingConfig
from microgpt.errors import UsageError, redacted
from microgpt.runs.folder import read_run

PARENT = "MICROGPT_PARENT_RUN"
LOG = "mlflow.log"
EXIT_SECONDS = {"http": 6.0, "sqlite": 10.0}  # a run exits within 10 s of its last step, samples and all
PARENT_SECONDS = {"http": 15.0, "sqlite": 120.0}  # a server answers or is done without; a first store takes its time


def tracking_uri(tracking: TrackingConfig) -> str:
    """Where MLflow's store is: as configured, as MLFLOW_TRACKING_URI says, or the sqlite file in ./mlruns.

    Raises:
        UsageError: `tracking=server` and no server is named.
    """
    if tracking.kind == "server" and not (tracking.uri or os.environ.get("MLFLOW_TRACKING_URI")):
        raise UsageError("tracking=server: no server is named", "set tracking.uri= or MLFLOW_TRACKING_URI")
    return tracking.uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"


class Feeder:
    """A helper process that tails a run folder into MLflow.

    Args:
        process: the helper.
        folder: the run's.
        seconds: that the end of the run waits for it.
    """

    def __init__(self, process: subprocess.Popen[bytes], folder: Path, seconds: float) -> None:
        self._process, self._folder, self._seconds = process, folder, seconds

    def finish(self) -> None:
        """Give it time to send the rest; what does not go through in time is sent on without us."""
        if not read_run(self._folder).get("ready"):  # there is nothing to send
            self._process.terminate()
            self._process.wait()
            return
        again = f"python -m microgpt.tracking.feeder {self._folder}"
        try:
            code = self._process.wait(self._seconds)
        except subprocess.TimeoutExpired:
            rest = f"if it cannot be reached for a minute, later by {again}"
            print(f"note: MLflow is slow; the rest is being sent in the background, {rest}", file=sys.stderr)
            return
        if code:
            print(f"note: MLflow was not reached (see {self._folder / LOG}); send again: {again}", file=sys.stderr)


def _where(tracking: TrackingConfig) -> str:
    return "http" if tracking_uri(tracking).startswith("http") else "sqlite"


def _environment(tracking: TrackingConfig) -> dict[str, str]:
    settings = {"uri": tracking_uri(tracking), "experiment": tracking.experiment}
    limits = {
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    }  # the feeder tries again
    return {**limits, **os.environ, "MICROGPT_TRACKING": json.dumps(settings), "OMP_NUM_THREADS": "1"}


def start_feeder(folder: Path, tracking: TrackingConfig) -> Feeder:
    """Start the helper of a run."""
    with open(folder / LOG, "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "microgpt.tracking.feeder", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=_environment(tracking),
            start_new_session=True,  # a Ctrl-C for the training is not for it
        )
    return Feeder(process, folder, EXIT_SECONDS[_where(tracking)])


def start_parent(name: str, kind: str, tracking: TrackingConfig, known: str = "") -> str:
    """Make the parent run of a sweep or pipeline and return its id, or nothing where MLflow is not to be had.

    With the id of one that is `known` from an earlier start, that one goes on if it is still there.
    """
    return _parent(tracking, "start", name, kind, *([known] if known else []))


def log_to_parent(run_id: str, paths: list[Path], tracking: TrackingConfig) -> None:
    """Keep files with a parent run."""
    _parent(tracking, "log", run_id, *map(str, paths))


def end_parent(run_id: str, status: str, tracking: TrackingConfig) -> None:
    """Give a parent run its final status."""
    _parent(tracking, "end", run_id, status)


def _parent(tracking: TrackingConfig, *words: str) -> str:
    limit = PARENT_SECONDS[_where(tracking)]
    try:
        done: Any = subprocess.run(
            [sys.executable, "-m", "microgpt.tracking.parent", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=_environment(tracking),
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        print(f"note: MLflow has no parent run (no answer in {limit:.0f} s)", file=sys.stderr)
        return ""
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = redacted(reason)[:200]
        print(f"note: MLflow has no parent run ({reason})", file=sys.stderr)
        return ""
    return done.stdout.strip()
