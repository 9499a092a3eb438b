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
    from microgpt.training.ranks import Ranks


def run_train(config: TrainConfig, overrides: list[str], output: Path) -> None:
    """The stage: in this process, or as one of several that have been started together."""
    from microgpt.tracking.start import tracking_uri

    tracking_uri(config.tracking)  # a mistake in it is told before anything is made
    if runtime.launched_world() == 1:
        _lead(config, overrides, output, None)
        return
    from microgpt.training.ranks import joined

    ranks = joined(config.device)
    with ranks.together():
        if ranks.first:
            _lead(config, overrides, output, ranks)
        else:
            _follow(overrides, ranks)


def _lead(config: TrainConfig, overrides: list[str], output: Path, ranks: Ranks | None) -> None:
    """Train as the process that owns the run folder."""
    from microgpt.files import FolderLock, remove_leftovers
    from microgpt.runs.folder import FAILED, KILLED, RunFolder
    from microgpt.runs.start import started
    from microgpt.sweeps.trial import claim, heeding, start_over
    from microgpt.tracking.start import start_feeder
    from microgpt.training.ranks import DISTRIBUTED

    trial = claim(config, output)
    start = started(config, overrides, Path(os.path.relpath(output)))
    config = start.config
    if trial is not None and trial.quiet:
        config.tracking.progress = False
    if ranks is None and config.device.name in DISTRIBUTED:
        from microgpt.training.launch import launch, processes_here

        count = processes_here(config.device)
        if count * config.device.num_nodes > 1:
            words = ["resume=" if w == "resume=auto" and start.checkpoint is None else w for w in overrides]
            code = launch(config.device, words, start.folder, count)
            if code:
                raise SystemExit(code)
            return
    if ranks is not None and config.device.name not in DISTRIBUTED:
        from microgpt.errors import UsageError

        raise UsageError(
            f"{ranks.world} processes were started together, and device={config.device.name} is for one",
            "add device=ddp or device=fsdp, or start one without torchrun or srun",
        )
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
    if ranks is not None:
        ranks.tell("start", start.to_json())
    for where, name in ((start.folder, "config.yaml"), (start.folder, "run.json"), (folder.checkpoints, "")):
        remove_leftovers(where, name)  # of a run here that was killed; the folder is ours alone now
    status = FAILED
    feeder: Any = None
    try:
        with runtime.StopSignals().installed() as signals, heeding(trial, output, signals):
            facts: dict[str, Any] = {"stage": "train", "status": "RUNNING", "pid": os.getpid(), "error": ""}
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

            status = train(start, overrides, folder, signals, ranks)
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


def _follow(overrides: list[str], ranks: Ranks) -> None:
    """Train along with the process that leads; nothing is written or told."""
    from microgpt.runs.folder import FollowedFolder
    from microgpt.runs.start import Start

    with runtime.StopSignals(quiet=True).installed() as signals:
        start = Start.from_json(ranks.hear("start"))
        from microgpt.training.run import train

        train(start, overrides, FollowedFolder(start.folder), signals, ranks)


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    if {"-m", "--multirun"} & set(sys.argv) and runtime.launched_world() > 1:
        from microgpt.errors import UsageError, report

        what = f"{runtime.launched_world()} processes were started together, and a sweep is started by one"
        return report(UsageError(what, "leave torchrun out: each trial with device=ddp starts its own processes"))
    return stage_main("train", run_train)


if __name__ == "__main__":
    sys.exit(main())
