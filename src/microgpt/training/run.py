"""One training run from its config to its last sample, in the order in which things can fail.

torch and Lightning cost seconds to import, so everything that can fail without them does so before.
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.checkpoints.folder import TOKENIZER, find
from microgpt.checkpoints.model import ModelFolder, load_weights, open_model
from microgpt.config.auto import Facts, resolved
from microgpt.config.build import build, flat, plain
from microgpt.config.scan import touched_keys
from microgpt.config.schema import TokenizerConfig, TrainConfig
from microgpt.data.mixture import Prepared, content_fingerprint, prepare_all
from microgpt.errors import DataError, ModelError, Stopped, UsageError
from microgpt.runs.find import model_path, point_latest
from microgpt.runs.folder import FINISHED, PRUNED, SAMPLES, RunFolder, provenance, read_run
from microgpt.runs.start import Start
from microgpt.tokenizer.base import Tokenizer
from microgpt.tokenizer.load import load_tokenizer

if TYPE_CHECKING:
    from microgpt.model.gpt import GPT
    from microgpt.training.fit import Fitted
    from microgpt.training.ranks import Ranks
    from microgpt.training.schedule import Schedule


def train(
    start: Start,
    overrides: list[str],
    folder: RunFolder,
    signals: runtime.StopSignals,
    ranks: Ranks | None = None,
) -> str:
    """Train, score and sample.

    Args:
        start: the config and what it goes on from.
        overrides: what the user typed.
        folder: the run's, locked.
        signals: installed.
        ranks: this process and its fellows, where there are several.

    Returns:
        The status to end with: finished, or pruned by the sweep that the run is a trial of.

    Raises:
        MicrogptError: whatever goes wrong, with its exit code.
    """
    config = start.config
    leads = ranks is None or ranks.first
    config.tracking.progress = config.tracking.progress and leads
    parent = _parent_model(config, overrides) if config.init_from and start.checkpoint is None else None
    prepared = _data(start, parent) if ranks is None else _shared_data(start, parent, ranks)
    if leads and signals.requested:
        raise Stopped(signals.requested, "before the first step", "start it again")

    import torch

    from microgpt.training.compiling import planned
    from microgpt.training.fit import fit
    from microgpt.training.ranks import divided
    from microgpt.training.report import end_table, start_table
    from microgpt.training.search import kept, searched

    device = _device(config) if ranks is None else ranks.device
    chosen = chosen_before(start, overrides, device)
    precision = runtime.choose_precision(config.device.precision, device)
    if ranks is not None:
        share_machine(config, ranks, precision)
    torch.manual_seed(config.seed)  # dropout draws from it; a resumed run restores its state
    model = _model(config, prepared.tokenizer, parent)
    val_rows = sum(b.rows.per_epoch for b in prepared.val_batches(config.data, config.model.block_size, 1))
    positions = prepared.facts["train"]["positions"]
    facts = Facts(val_rows, model.flops_per_token(), positions, model.parameter_count())
    if device == "cuda":
        torch.set_float32_matmul_precision("high")  # what autocast leaves in f32, such as Muon's sums, may use TF32
    if device == "cpu":
        torch.use_deterministic_algorithms(True, warn_only=True)
    if start.checkpoint is None:
        config = searched(config, lambda c: resolved(c, facts), model, prepared, device, precision, signals, folder)
    config = resolved(kept(config), facts)
    runtime.set_threads(config.device.threads)
    if ranks is not None:
        divided(config.data.batch_size or 1, config.trainer.accumulate, ranks.world)  # refuses early
    schedule, note = _schedule(config, start)
    plan = planned(model.flops_per_token(), config, schedule.end, device)
    config.device.compile = "on" if plan.compiled else "off"
    precision = runtime.choose_precision(config.device.precision, device, plan.compiled)
    if device == "cpu":
        config.device.precision = precision  # another CPU would choose otherwise
    saved = plain(config)
    saved["resume"], saved["from_run"], saved["trainer"]["additional_steps"] = "", "", 0
    if start.checkpoint is None:
        folder.write_config(saved)
    folder.level = config.tracking.log_level
    if leads:
        point_latest(folder.path)  # only now: what fails before this is no run that anybody means by "latest"
    where = device if ranks is None else f"{ranks.world} x {device} ({config.device.name})"
    folder.log(f"{'resumed' if start.checkpoint else 'started'}: {note or 'a fresh run'}; on {where} in {precision}")
    folder.update(
        name=run_name(config, folder.path),
        **(provenance() if leads and start.checkpoint is None else {"resumed": runtime.now_iso()}),
        data=prepared.facts,
        device=device,
        processes=1 if ranks is None else ranks.world,
        precision=precision,
        chosen={key: getattr(config.device, key) for key in chosen},
        parameters=model.parameter_count(),
        flops_per_token=model.flops_per_token(),
        vocab_size=prepared.tokenizer.vocab_size,
        max_steps=schedule.end,
        ready=True,  # the feeder waits for this
    )
    if config.tracking.progress:
        start_table(config, folder.path, prepared, model, where, precision, plan, note)
    meta = {
        "model": {"name": folder.path.name, "data": prepared.facts, "sampling": saved["sampling"]},
        "state": {"data_fingerprint": prepared.fingerprint, "config": saved},
    }
    fitted = fit(config, folder, model, prepared, schedule, device, precision, signals, meta, start.checkpoint, ranks)
    if not leads:
        return FINISHED
    opened, samples = _finish(config, folder, fitted)
    if config.tracking.progress:
        end_table(folder.path, fitted, opened.tokenizer, samples, config.tracking.kind)
    return PRUNED if fitted.pruned else FINISHED


def _parent_model(config: TrainConfig, overrides: list[str]) -> ModelFolder:
    """The model that `init_from` names; its shape becomes the config's.

    Raises:
        ModelError: there is none, or the user asked for another shape.
    """
    parent = open_model(model_path(config.init_from))
    typed, _ = touched_keys(overrides, TrainConfig)
    before, wanted = flat(config.model), flat(parent.config)
    changed = [k for k in wanted if f"model.{k}" in typed and before[k] != wanted[k] and k != "dropout"]
    if changed:
        listed = ", ".join(f"model.{k}={before[k]} (it has {wanted[k]})" for k in changed)
        raise ModelError(f"init_from={config.init_from} has another shape: {listed}", "leave these keys out")
    dropout = config.model.dropout
    config.model = parent.config
    config.model.depth = None  # its rules are for models that are trained from nothing
    config.model.dropout = dropout
    return parent


def _data(start: Start, parent: ModelFolder | None) -> Prepared:
    """The data of the run, with the tokenizer of the run or model that it goes on from.

    Raises:
        DataError: it is bad, or not what the run was made from.
    """
    config = start.config
    given: Tokenizer | None = parent.tokenizer if parent else None
    if start.source is not None:
        kept = start.checkpoint or find(start.source.path / "checkpoints", "latest")
        given = load_tokenizer(kept / TOKENIZER)
    if given is None:
        config.tokenizer = tokenizer_at_hand(config.tokenizer)
    else:
        config.tokenizer.kind, config.tokenizer.vocab_size = given.kind, max(258, given.vocab_size)
    block = config.model.block_size
    if start.source is not None:
        known = start.source.facts.get("data", {}).get("fingerprint")
        if known and known != content_fingerprint(config.data):
            what = "resumed" if start.checkpoint else "repeated"
            raise DataError(
                f"the data has changed since the run was made (its fingerprint differs), so it cannot be {what}",
                "bring the old file back, or start a new run",
            )
    return prepare_all(config.data, config.tokenizer, given, config.tracking.progress, block)


def _shared_data(start: Start, parent: ModelFolder | None, ranks: Ranks) -> Prepared:
    """The data of the run: process 0 of a machine tokenizes, the others of it find what it has cached.

    Raises:
        SystemExit: process 0 could not, and has said why.
    """
    if not ranks.first:
        start.config.tokenizer = build(TokenizerConfig, ranks.hear("tokenizer"))
    prepared = _data(start, parent)
    if ranks.first:
        ranks.tell("tokenizer", plain(start.config.tokenizer))
    return prepared


def _device(config: TrainConfig) -> str:
    """The device of a run of one process; ddp and fsdp of one process are just that."""
    from microgpt.training.ranks import DISTRIBUTED

    device = config.device
    return runtime.choose_device(device.accelerator if device.name in DISTRIBUTED else device.name)


def chosen_before(start: Start, overrides: list[str], device: str) -> list[str]:
    """Take over what the run had chosen on this kind of device; what it chose on another is chosen again.

    Its facts say it, since its config is that of its first start.

    Returns:
        The settings of the device that are, or were, chosen and not given.
    """
    config = start.config.device
    given, _ = touched_keys(overrides, TrainConfig)
    facts = {} if start.source is None else start.source.facts
    before = {key: value for key, value in facts.get("chosen", {}).items() if f"device.{key}" not in given}
    for key, value in before.items():
        setattr(config, key, value if facts["device"] == device else "auto")
    return sorted({*before, *(key for key in ("compile", "precision") if getattr(config, key) == "auto")})


def share_machine(config: TrainConfig, ranks: Ranks, precision: str) -> None:
    """Write down what several processes are, and give each its share of the cores.

    Raises:
        UsageError: a setting is for one process only.
    """
    device = config.device
    device.devices, device.num_nodes = ranks.local_world, ranks.world // ranks.local_world
    device.threads = device.threads or max(1, runtime.usable_cores() // ranks.local_world)
    if config.trainer.auto_micro_batch:
        raise UsageError(
            f"trainer.auto_micro_batch=true: {ranks.world} processes cannot agree on memory that one of them lacks",
            "leave it out, and lower data.batch_size while trainer.accumulate grows",
        )
    if device.name == "fsdp" and precision == "f16":
        raise UsageError("device=fsdp: there is no f16 for it", "use device.precision=bf16 or f32")


def tokenizer_at_hand(chosen: TokenizerConfig) -> TokenizerConfig:
    """The tokenizer config; a trained BPE stands in for cl100k where its ranks are not at hand, if allowed."""
    if chosen.kind == "cl100k" and chosen.fallback:
        from microgpt.tokenizer.cl100k import load_encoding

        try:
            load_encoding()
        except (DataError, UsageError) as error:
            print(f"note: {error.what}; a trained BPE of {chosen.vocab_size} tokens is used instead", file=sys.stderr)
            chosen.kind = "bpe"
    return chosen


def _model(config: TrainConfig, tokenizer: Tokenizer, parent: ModelFolder | None) -> GPT:
    """The network with its initial weights: drawn from the seed, or those of `init_from`.

    Tokens that the parent did not know get the mean of its rows: unlike a random row it is at home among them.
    """
    import torch

    from microgpt.model.gpt import GPT

    model = GPT(config.model, tokenizer.vocab_size)
    model.init_weights(config.seed)
    if parent is not None:
        weights = dict(load_weights(parent).named_parameters())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                old = weights[name]
                if old.shape != parameter.shape:
                    parameter.copy_(old.mean(0, keepdim=True).expand_as(parameter))
                    parameter[: len(old)] = old
                else:
                    parameter.copy_(old)
    return model


def _schedule(config: TrainConfig, start: Start) -> tuple[Schedule, str]:
    """The learning-rate schedule, and what to tell a user who resumes.

    Raises:
        ModelError: the run to resume has finished.
    """
    from microgpt.training.schedule import extended, from_json, make_schedule

    if start.checkpoint is None:
        return make_schedule(config.optimizer, config.trainer.max_steps or 1), ""
    from microgpt.training.checkpoint_io import read_state

    progress = read_state(start.checkpoint)["progress"]
    schedule, done, more = from_json(progress["schedule"]), int(progress["step"]), config.trainer.additional_steps
    if more:
        schedule, words = extended(schedule, done, more)
        return schedule, f"{more:,} more steps after step {done:,}; the learning rate {words}"
    if done >= schedule.end:
        raise ModelError(f"the run has finished its {schedule.end:,} steps", "go on with trainer.additional_steps=N")
    return schedule, f"resumed at step {done:,} of {schedule.end:,}"


def run_name(config: TrainConfig, path: Path) -> str:
    """What a run is called: as configured, or by its folder; a trial of a sweep by what was swept."""
    swept = [str(word) for word in read_run(path).get("swept", [])]
    return config.name or f"{path.name} {' '.join(swept)}".strip()[:250]


def _finish(config: TrainConfig, folder: RunFolder, fitted: Fitted) -> tuple[ModelFolder, list[str]]:
    """Draw the last samples from the best checkpoint and complete run.json."""
    from microgpt.training.samples import drawn, prompts_for

    module = fitted.module
    opened = open_model(find(folder.checkpoints, "best"))
    samples = drawn(load_weights(opened), opened.tokenizer, config.sampling)
    line: dict[str, Any] = {"step": module.best.step, "samples": samples, "final": True}
    if prompts := prompts_for(opened.tokenizer):
        line["prompts"] = prompts
    folder.append(SAMPLES, json.dumps(line))
    best = {"best_val_loss": module.best.loss, "best_val_bpb": module.best.bpb, "best_step": module.best.step}
    facts: dict[str, Any] = {k: v if math.isfinite(v) else None for k, v in best.items()}
    how = "pruned" if fitted.pruned else "finished"
    folder.log(f"{how}: step {module.steps_done}, best validation loss {module.best.loss:.4f}")
    folder.update(
        **facts,
        steps=module.steps_done,
        tokens=module.tokens_done,
        train_seconds=round(module.elapsed, 3),
        wall_seconds=round(fitted.seconds, 3),
        stopped_early=fitted.stopped_early,
    )
    return opened, samples
