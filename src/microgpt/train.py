"""`python -m microgpt.train`: from data to a trained model in a run folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import TrainConfig


def run_train(config: TrainConfig, overrides: list[str], output: Path) -> None:
    """The stage."""
    from microgpt.files import FolderLock, remove_leftovers
    from microgpt.runs.folder import FAILED, KILLED, RunFolder
    from microgpt.runs.start import started
    from microgpt.sweeps.trial import claim, heeding, start_over
    from microgpt.tracking.start import start_feeder, tracking_uri

    tracking_uri(config.tracking)  # a mistake in it is told before anything is made
    trial = claim(config, output)
    start = started(config, overrides, Path(os.path.relpath(output)))
    config = start.config
    if trial is not None and trial.quiet:
        config.tracking.progress = False
    folder = RunFolder(start.folder)
    lock = FolderLock(start.folder)
    if start.checkpoint is None and trial is not None:
        start_over(start.folder)
    elif start.checkpoint is None and (start.folder / "metrics.jsonl").exists():
        from microgpt.errors import UsageError

        raise UsageError(
            f"the folder {start.folder} holds a run already",
            f"go on with it by resume={start.folder}, or choose another with hydra.run.dir=",
        )
    for where, name in ((start.folder, "config.yaml"), (start.folder, "run.json"), (folder.checkpoints, "")):
        remove_leftovers(where, name)  # of a run here that was killed; the folder is ours alone now
    status = FAILED
    feeder: Any = None
    try:
        with runtime.StopSignals().installed() as signals, heeding(trial, output, signals):
            facts: dict[str, Any] = {"stage": "train", "status": "RUNNING", "pid": os.getpid()}
            if start.checkpoint is None:
                facts["started"] = runtime.now_iso()
                facts["overrides"] = overrides
                facts["from_run"] = config.from_run
            if trial is not None:
                facts |= {"sweep": trial.parent, "swept": trial.swept}
            folder.update(**facts)
            if config.tracking.kind != "off":
                feeder = start_feeder(start.folder, config.tracking)
            from microgpt.training.run import train

            status = train(start, overrides, folder, signals)
    except BaseException as error:
        from microgpt.errors import Stopped

        status = KILLED if isinstance(error, (Stopped, KeyboardInterrupt)) else FAILED
        folder.update(error=str(error)[:500])
        folder.log(f"ended: {status}, {error}")
        raise
    finally:
        folder.update(status=status, ended=runtime.now_iso())
        folder.close()
        if feeder is not None:
            feeder.finish()
        lock.close()


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    return stage_main("train", run_train)


if __name__ == "__main__":
    sys.exit(main())
