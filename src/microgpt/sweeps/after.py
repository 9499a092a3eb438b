"""What is made of a sweep at its end: the comparison of its trials, also with the parent run in MLflow."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

from microgpt.config.schema import TrackingConfig
from microgpt.tracking.start import log_to_parent

COMPARE = "microgpt.compare"
MADE = ("compare.html", "runs.csv")
SECONDS = 600


def compare(folder: Path, tracking: TrackingConfig, parent: str) -> None:
    """Compare the trials of a sweep's folder; a failure is one note and never the sweep's.

    Args:
        folder: the sweep's; the comparison goes into `compare` in it.
        tracking: where the parent run is.
        parent: its id, or nothing.
    """
    if importlib.util.find_spec(COMPARE) is None:
        return
    made = folder / "compare"
    words = [sys.executable, "-m", COMPARE, f"runs={folder}", f"hydra.run.dir={made}"]
    try:
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS)
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    if reason:
        print(f"note: the trials were not compared ({reason[:200]})", file=sys.stderr)
        return
    found = [made / name for name in MADE if (made / name).exists()]
    if parent and found:
        log_to_parent(parent, found, tracking)
