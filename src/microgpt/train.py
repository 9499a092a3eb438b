"""`python -m microgpt.train`: from data to a trained model in a run folder."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import TrainConfig
    from microgpt.runs.find import Run


@dataclass(frozen=True)
class Start:
    """Where a run starts from.

    Attributes:
        config: what the user wants, laid over a saved config where there is one.
        folder: the run folder.
        checkpoint: one to go on from, or None.
        source: the run that is resumed or repeated, or None.
    """

    config: TrainConfig
    folder: Path
    checkpoint: Path | None
    source: Run | None


def started(config: TrainConfig, overrides: list[str], folder: Path) -> Start:
    """Resolve `resume=` and `from_run=`.

    Raises:
        ModelError: there is nothing to resume, or it has another model or data.
    """
    from microgpt.checkpoints.folder import checkpoints_in, find
    from microgpt.config.compose import overlaid
    from microgpt.errors import ModelError
    from microgpt.runs.find import all_runs, find_run
    from microgpt.runs.folder import read_config

    if config.from_run:
        source = find_run(config.from_run)
        again = overlaid(read_config(source.path), overrides, config)
        again.resume, again.from_run, again.trainer.additional_steps = "", config.from_run, 0
        return Start(again, folder, None, source)
    if not config.resume:
        return Start(config, folder, None, None)
    reference = config.resume
    if reference == "auto":
        runs = [run for run in all_runs() if checkpoints_in(run.path / "checkpoints")]
        if not runs:
            print("note: resume=auto found no run; starting a fresh one", file=sys.stderr)
            from microgpt.config.main import run_folder

            stamp = runtime.now_iso()[:19].replace("T", "/").replace(":", "-")
            made = run_folder(stamp, config.name, "", config.data.corpus, config.data.path, "")
            return Start(config, Path(made), None, None)
        reference = str(runs[-1].path)
    chosen = Path(reference)
    source = find_run(str(chosen.parent.parent) if chosen.parent.name == "checkpoints" else reference)
    checkpoint = chosen if chosen.parent.name == "checkpoints" else find(source.path / "checkpoints", "latest")
    saved = read_config(source.path)
    merged = overlaid(saved, overrides, config)
    refuse_changes(saved, merged)
    if not checkpoints_in(source.path / "checkpoints"):
        raise ModelError(f"{source.path} has no checkpoint to resume from", "start it again with from_run=")
    return Start(merged, source.path, checkpoint, source)


def refuse_changes(saved: dict[str, Any], config: TrainConfig) -> None:
    """A resumed run must keep its model, vocabulary, data and optimizer.

    Raises:
        ModelError: listing every key that differs.
    """
    from microgpt.config.build import build, flat
    from microgpt.config.compose import migrated
    from microgpt.config.schema import TrainConfig
    from microgpt.errors import ModelError

    before, after = flat(build(TrainConfig, migrated(saved))), flat(config)
    fixed = ("model.", "data.", "tokenizer.", "optimizer.", "seed", "trainer.accumulate", "trainer.max_steps")
    free = ("data.workers", "data.num_proc")
    changed = [k for k in before if k.startswith(fixed) and k not in free and before[k] != after[k]]
    if changed:
        listed = ", ".join(f"{k} ({before[k]} became {after[k]})" for k in changed)
        raise ModelError(
            f"the run cannot be resumed with other settings: {listed}",
            "leave them out, extend the run with trainer.additional_steps=, or start a new one with from_run=",
        )


def run_train(config: TrainConfig, overrides: list[str], output: Path) -> None:
    """The stage."""
    from microgpt.files import FolderLock
    from microgpt.runs.find import point_latest
    from microgpt.runs.folder import FAILED, FINISHED, KILLED, RunFolder

    start = started(config, overrides, output)
    config = start.config
    folder = RunFolder(start.folder)
    lock = FolderLock(start.folder)
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
                from microgpt.tracking.start import start_feeder

                feeder = start_feeder(start.folder, config.tracking)
            point_latest(start.folder)
            _train(start, config, folder, signals, feeder)
            status = FINISHED
    except BaseException as error:
        from microgpt.errors import Stopped

        status = KILLED if isinstance(error, (Stopped, KeyboardInterrupt)) else FAILED
        folder.update(error=str(error)[:500])
        raise
    finally:
        folder.update(status=status, ended=runtime.now_iso())
        folder.close()
        if feeder is not None:
            feeder.finish()
        lock.close()


def _train(start: Start, config: TrainConfig, folder: Any, signals: Any, feeder: Any) -> None:
    from microgpt.config.auto import Facts, resolved, resolved_shape
    from microgpt.config.build import plain
    from microgpt.data.prepare import prepare

    given = None
    if start.source is not None:
        from microgpt.checkpoints.folder import TOKENIZER, find
        from microgpt.tokenizer.load import load_tokenizer

        kept = start.checkpoint or find(start.source.path / "checkpoints", "latest")
        given = load_tokenizer(kept / TOKENIZER)
    config.tokenizer = tokenizer_at_hand(config) if given is None else config.tokenizer
    shards, tokenizer = prepare(config.data, config.tokenizer, given, config.tracking.progress)
    if start.source is not None:
        _refuse_other_data(start, shards)
    if signals.requested:
        from microgpt.errors import Stopped

        raise Stopped(signals.requested, "before the first step", "start it again")

    # torch and Lightning cost seconds to import: everything that can fail without them has by now
    import torch

    from microgpt.data.rows import Rows
    from microgpt.model.gpt import GPT
    from microgpt.training.fit import estimated_seconds, fit
    from microgpt.training.schedule import extended, from_json, make_schedule

    device = runtime.choose_device(config.device.name)
    precision = runtime.choose_precision(config.device.precision, device)
    config.device.threads = runtime.set_threads(config.device.threads)
    config = resolved_shape(config)
    torch.manual_seed(config.seed)  # dropout draws from it; a resumed run restores its state
    model = GPT(config.model, tokenizer.vocab_size)
    model.init_weights(config.seed)
    val_rows = Rows(shards.val, config.model.block_size, None, config.data.packing).per_epoch
    config = resolved(config, Facts(val_rows, model.flops_per_token()))
    schedule = make_schedule(config.optimizer, config.trainer.max_steps)
    note = ""
    if start.checkpoint is not None:
        from microgpt.training.checkpoint_io import read_state

        progress = read_state(start.checkpoint)["progress"]
        schedule = from_json(progress["schedule"])
        done = int(progress["step"])
        if config.trainer.additional_steps:
            schedule, words = extended(schedule, done, config.trainer.additional_steps)
            note = f"{config.trainer.additional_steps:,} more steps after step {done:,}; the learning rate {words}"
        elif done >= schedule.end:
            from microgpt.errors import ModelError

            raise ModelError(
                f"the run has finished its {schedule.end:,} steps", "go on with trainer.additional_steps=N"
            )
        else:
            note = f"resumed at step {done:,} of {schedule.end:,}"
    saved = plain(config)
    saved["resume"] = ""
    saved["trainer"]["additional_steps"] = 0
    if start.checkpoint is None or not (folder.path / "config.yaml").exists():
        folder.write_config(saved)
    from microgpt.runs.folder import provenance

    data_facts = {
        "fingerprint": shards.meta["data_fingerprint"],
        "tokens_fingerprint": shards.fingerprint,
        "sources": [{k: s[k] for k in ("path", "format", "sha256", "bytes")} for s in shards.meta["sources"]],
        "train": shards.meta["train"],
        "val": shards.meta["val"],
    }
    folder.update(
        name=run_name(config, folder.path),
        **(provenance() if start.checkpoint is None else {"resumed": runtime.now_iso()}),
        data=data_facts,
        device=device,
        precision=precision,
        parameters=model.parameter_count(),
        flops_per_token=model.flops_per_token(),
        vocab_size=tokenizer.vocab_size,
        max_steps=schedule.end,
        ready=True,
    )
    if config.tracking.progress:
        from microgpt.training.report import start_table

        seconds = estimated_seconds(model.flops_per_token(), config, schedule.end, device)
        start_table(config, folder.path, shards, tokenizer, model, device, precision, seconds, note)
    meta = {
        "model": {"name": folder.path.name, "data": data_facts},
        "state": {"data_fingerprint": shards.meta["data_fingerprint"], "config": saved},
    }
    if precision == "f32" and device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    fitted = fit(
        config, folder, model, shards, tokenizer, schedule, device, precision, signals, meta, start.checkpoint
    )
    _finish(config, folder, fitted, feeder)


def run_name(config: TrainConfig, path: Path) -> str:
    """What a run is called: as configured, or by its folder; a trial of a sweep by what was swept."""
    if config.name or not os.environ.get("MICROGPT_SWEEP"):
        return config.name or path.name
    from microgpt.runs.folder import read_run

    swept = [str(w) for w in read_run(path).get("overrides", [])]
    return f"{path.name} {' '.join(swept)}"[:250]


def tokenizer_at_hand(config: TrainConfig) -> Any:
    """The tokenizer config; a trained BPE stands in for cl100k where its ranks are not at hand, if allowed."""
    from microgpt.errors import DataError, UsageError

    chosen = config.tokenizer
    if chosen.kind == "cl100k" and chosen.fallback:
        from microgpt.tokenizer.cl100k import load_encoding

        try:
            load_encoding()
        except (DataError, UsageError) as error:
            print(
                f"note: {error.what}; a trained BPE of {chosen.vocab_size} tokens is used instead",
                file=sys.stderr,
            )
            chosen.kind = "bpe"
    return chosen


def _refuse_other_data(start: Start, shards: Any) -> None:
    from microgpt.errors import DataError

    assert start.source is not None
    known = start.source.facts.get("data", {}).get("fingerprint")
    if known and known != shards.meta["data_fingerprint"]:
        what = "resumed" if start.checkpoint else "repeated"
        raise DataError(
            f"the data has changed since the run was made (its fingerprint differs), so it cannot be {what}",
            "bring the old file back, or start a new run",
        )


def _finish(config: TrainConfig, folder: Any, fitted: Any, feeder: Any) -> None:
    """Score the best checkpoint on the whole validation set, draw samples, and say where everything is."""
    from microgpt.checkpoints.folder import find
    from microgpt.checkpoints.model import load_weights, open_model
    from microgpt.inference.generate import generate

    module = fitted.module
    opened = open_model(find(folder.checkpoints, "best"))
    model = load_weights(opened)
    samples = [s.text for s in generate(model, opened.tokenizer, config.sampling)]
    import json

    from microgpt.runs.folder import SAMPLES

    folder.append(SAMPLES, json.dumps({"step": module.best.step, "samples": samples, "final": True}))
    best = {"best_val_loss": module.best.loss, "best_val_bpb": module.best.bpb, "best_step": module.best.step}
    folder.update(
        **{k: v if math.isfinite(v) else None for k, v in best.items()},
        steps=module.steps_done,
        tokens=module.tokens_done,
        train_seconds=round(module.elapsed, 3),
        stopped_early=fitted.stopped_early,
    )
    if config.tracking.progress:
        from microgpt.training.report import end_table

        end_table(folder.path, fitted, opened.tokenizer.vocab_size, samples, config.tracking.kind)


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
    if not tracked or PARENT in os.environ:
        return stage_main("train", run_train)
    parent = start_parent("sweep " + runtime.now_iso()[:19].replace("T", " "), "sweep", tracking)
    os.environ[PARENT] = parent
    os.environ["MICROGPT_SWEEP"] = parent
    code = stage_main("train", run_train)
    if parent:
        end_parent(parent, {0: "FINISHED", 130: "KILLED", 143: "KILLED"}.get(code, "FAILED"), tracking)
    return code


if __name__ == "__main__":
    sys.exit(main())
