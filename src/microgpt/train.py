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
    from microgpt.runs.folder import FAILED, FINISHED, KILLED, RunFolder
    from microgpt.runs.start import started
    from microgpt.tracking.start import start_feeder, tracking_uri

    tracking_uri(config.tracking)  # a mistake in it is told before anything is made
    start = started(config, overrides, Path(os.path.relpath(output)))
    config = start.config
    folder = RunFolder(start.folder)
    lock = FolderLock(start.folder)
    if start.checkpoint is None and (start.folder / "metrics.jsonl").exists():
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
        with runtime.StopSignals().installed() as signals:
            facts: dict[str, Any] = {"stage": "train", "status": "RUNNING", "pid": os.getpid()}
            if start.checkpoint is None:
                facts["started"] = runtime.now_iso()
                facts["overrides"] = overrides
                facts["from_run"] = config.from_run
            folder.update(**facts, sweep=os.environ.get("MICROGPT_SWEEP", ""))
            if config.tracking.kind != "off":
                feeder = start_feeder(start.folder, config.tracking)
            from microgpt.training.run import train

            train(start, overrides, folder, signals)
            status = FINISHED
    except BaseException as error:
        from microgpt.errors import Stopped, redacted

        status = KILLED if isinstance(error, (Stopped, KeyboardInterrupt)) else FAILED
        folder.update(error=redacted(str(error))[:500])
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
    if {"-m", "--multirun"} & set(sys.argv):
        return _sweep()
    return stage_main("train", run_train)


def _sweep() -> int:
    """A sweep: its trials stand under one MLflow run, which is made here and known to them by the environment."""
    from microgpt.config.schema import TrackingConfig
    from microgpt.tracking.start import PARENT, end_parent, start_parent

    given = dict(w.split("=", 1) for w in sys.argv[1:] if "=" in w)
    tracking = TrackingConfig(
        uri=given.get("tracking.uri", ""), experiment=given.get("tracking.experiment", "microgpt")
    )
    tracked = given.get("tracking", "") != "off" and given.get("tracking.kind", "") != "off"
    if not tracked or PARENT in os.environ or not _starts(sys.argv[1:]):
        return stage_main("train", run_train)
    parent = start_parent("sweep " + runtime.now_iso()[:19].replace("T", " "), "sweep", tracking)
    os.environ[PARENT] = parent
    os.environ["MICROGPT_SWEEP"] = parent
    code = stage_main("train", run_train)
    if parent:
        end_parent(parent, {0: "FINISHED", 130: "KILLED", 143: "KILLED"}.get(code, "FAILED"), tracking)
    return code


def _starts(words: list[str]) -> bool:
    """Whether a command line trains: it asks for no help and has no mistake, which `stage_main` would report."""
    from microgpt.config.compose import check_arguments
    from microgpt.config.scan import split_arguments
    from microgpt.errors import UsageError

    if {"--help", "-h", "--version"} & set(words):
        return False
    try:
        overrides, flags = split_arguments([w for w in words if w != "--debug"])
        folders = [flags[i + 1] for i, f in enumerate(flags[:-1]) if f in ("--config-dir", "-cd")]
        check_arguments(overrides, "train", Path(folders[0]) if folders else None)
    except UsageError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
