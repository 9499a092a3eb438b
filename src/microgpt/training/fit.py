"""A run put together: model, data, optimizer, callbacks and Lightning's Trainer."""

from __future__ import annotations

import bisect
import copy
import itertools
import time
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from microgpt.config.auto import EVAL_BATCHES
from microgpt.config.schema import TrainConfig
from microgpt.data.batches import IGNORED, Batch, Batches
from microgpt.data.mixture import Prepared
from microgpt.errors import MicrogptError, ModelError, is_out_of_memory, printable
from microgpt.model.gpt import GPT
from microgpt.runs.folder import RunFolder
from microgpt.runtime import StopSignals, quiet_libraries
from microgpt.sweeps.study import reporter_of
from microgpt.training.checkpoint_io import FolderCheckpointIO
from microgpt.training.compiling import compiled_loss, complaint, is_of_compiling
from microgpt.training.lightning import EarlyStopping, pl
from microgpt.training.memory import out_of_memory
from microgpt.training.metrics import Metrics, measured_peak_flops
from microgpt.training.module import GPTModule
from microgpt.training.profile import Phases, write
from microgpt.training.progress import ProgressBar
from microgpt.training.pruning import Pruning
from microgpt.training.ranks import Ranks, SharedSignals, divided
from microgpt.training.samples import Samples
from microgpt.training.saving import Saving
from microgpt.training.schedule import Schedule
from microgpt.training.spans import Span, Spans
from microgpt.training.together import strategy_of

EVAL_TOKENS = 16384


class _Steps(IterableDataset[Span]):
    """Spans as Lightning wants them; no epoch of it is ever the whole data."""

    def __init__(self, spans: Spans) -> None:
        self.spans = spans

    def __iter__(self) -> Any:
        return iter(self.spans)


class FixedBatches(Dataset[Batch]):
    """The validation set in large batches, or those spread evenly over it that a run can afford.

    Args:
        parts: the batches of each data set, in their own order.
        rows: how many rows; 0 is all.
        rank, world: which share of them; every process has as many, some of which may be empty.
    """

    def __init__(self, parts: list[Batches], rows: int, rank: int = 0, world: int = 1) -> None:
        ends = list(itertools.accumulate(part.per_epoch for part in parts))
        count = ends[-1] if not rows else max(1, min(ends[-1], rows // parts[0].batch_size))
        self._parts, self._ends, self._count = parts, ends, count
        self._rank, self._world = rank, world

    def __len__(self) -> int:
        return -(-self._count // self._world)

    def __getitem__(self, index: int) -> Batch:
        place = index * self._world + self._rank
        if place >= self._count:
            spare = self._parts[0].fixed(0)
            return replace(spare, targets=np.full_like(spare.targets, IGNORED))
        number = place * self._ends[-1] // self._count
        part = bisect.bisect_right(self._ends, number)
        return self._parts[part].fixed(number - (self._ends[part - 1] if part else 0))


def validation_batch(val_rows: int, rows: int, block: int) -> int:
    """Rows of one validation batch: as many as compute well together, but of a part of the set no more than a share.

    Args:
        val_rows: how many rows are validated on; 0 is the whole set.
        rows: of a training batch.
        block: tokens of a row.
    """
    large = max(1, EVAL_TOKENS // block)
    # EVAL_BATCHES places of the set say more than one, and a batch of more rows than were asked for costs more
    return min(large, max(rows, val_rows // EVAL_BATCHES)) if val_rows else large


def _first(items: list[Any]) -> Any:
    return items[0]


@dataclass
class Fitted:
    """What training leaves.

    Attributes:
        module: the trained module.
        seconds: from the first batch to the end, with validations, samples and checkpoints.
        stopped_early: whether early stopping ended it.
        pruned: whether its sweep did.
        profile: phase, seconds and percent of the time, with trainer.profile.
    """

    module: GPTModule
    seconds: float
    stopped_early: bool
    pruned: bool
    profile: list[tuple[str, float, float]]


def fit(
    config: TrainConfig,
    folder: RunFolder,
    model: GPT,
    prepared: Prepared,
    schedule: Schedule,
    device: str,
    precision: str,
    signals: StopSignals,
    meta: dict[str, Any],
    checkpoint: Path | None = None,
    ranks: Ranks | None = None,
) -> Fitted:
    """Train.

    Args:
        config: every auto resolved.
        folder: the run's, locked by the caller.
        model: with its initial weights.
        prepared: the data.
        schedule: learning rate by step.
        device, precision: chosen by `runtime`.
        signals: installed by the caller.
        meta: facts for the checkpoints' JSON files.
        checkpoint: one to go on from.
        ranks: this process and its fellows, where there are several.

    Raises:
        Stopped: a signal ended it; everything is saved.
        DivergedError: too many updates were not finite.
        OutOfMemoryError: the device is too small.
    """
    block, rows = config.model.block_size, config.data.batch_size or 1
    world = 1 if ranks is None else ranks.world
    own_rows, _ = divided(rows, config.trainer.accumulate, world)
    batches = prepared.train_batches(config.data, block, own_rows, config.seed)
    compiled = config.device.compile == "on"
    listening = signals.apart() if compiled else nullcontext()  # the C++ compiler is a process of its own
    if ranks is not None:
        signals = ranks.signals = SharedSignals(signals)
    sharded = ranks is not None and config.device.name == "fsdp"
    plain = copy.deepcopy(model) if sharded else model  # what is written and sampled from, on the CPU
    tokenizer = prepared.tokenizer
    sizes = tokenizer.token_bytes()
    module = GPTModule(
        model,
        config,
        batches,
        schedule,
        None if sizes is None else torch.from_numpy(sizes),
        precision,
        compiled_loss(model, device) if compiled else None,
        lambda: bool(signals.requested),
        folder.log,
        ranks,
        plain if sharded else None,
    )
    trainer_config = config.trainer
    metrics = Metrics(
        folder,
        trainer_config.log_interval,
        config.tracking.system_interval,
        model.flops_per_token(),
        measured_peak_flops(device, precision) * world,
    )
    callbacks: list[pl.Callback] = []
    if trainer_config.patience:
        stopping = EarlyStopping(
            "val/loss",
            min_delta=trainer_config.min_delta,
            patience=trainer_config.patience,
            check_finite=False,
            check_on_train_epoch_end=False,  # with the validation, so that its checkpoint holds the outcome
        )
        callbacks.append(stopping)  # before the metrics, which write down how much patience is used
    samples = Samples(folder, tokenizer, config.sampling, trainer_config.sample_interval)
    saving = Saving(
        folder,
        trainer_config.checkpoint_interval or 0,
        trainer_config.keep_checkpoints,
        signals,
        metrics,
        bool(trainer_config.additional_steps),
    )
    callbacks += [metrics, samples, ProgressBar(metrics, config.tracking.progress)]
    reporter = reporter_of(folder.path, config.sweep, trainer_config.eval_interval or 1)
    pruning = None if reporter is None else Pruning(reporter)
    callbacks += [saving] if pruning is None else [pruning, saving]
    quiet_libraries()  # again: Lightning has made its loggers louder while it was imported
    module.profiler = profiler = Phases(device) if trainer_config.profile else None
    environments = [] if ranks is None else [ranks.environment]
    accelerator = {"cpu": "cpu", "cuda": "gpu", "mps": "mps"}[device]
    trainer = pl.Trainer(
        accelerator=accelerator,
        devices=1 if ranks is None else ranks.local_world,
        num_nodes=1 if ranks is None else ranks.world // ranks.local_world,
        strategy="auto" if ranks is None else strategy_of(ranks, sharded),
        use_distributed_sampler=False,  # batches are a function of step and process
        max_epochs=-1,
        check_val_every_n_epoch=1,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        plugins=[FolderCheckpointIO(plain, tokenizer, meta, filled=sharded), *environments],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        deterministic=trainer_config.deterministic,
        default_root_dir=str(folder.path),
        profiler=profiler,
    )
    val_rows = (trainer_config.eval_batches or 0) * rows
    grouped = validation_batch(val_rows, rows, block)
    rank = 0 if ranks is None else ranks.rank
    val = FixedBatches(prepared.val_batches(config.data, block, grouped), val_rows, rank, world)
    # a loader that is iterated draws a number; from this it leaves alone what dropout draws from and resume restores
    drawn = torch.Generator()
    if profiler is not None:
        profiler.begin()
    try:
        with listening:
            trainer.fit(
                module,
                DataLoader(_Steps(Spans(module)), batch_size=None, generator=drawn),
                DataLoader(val, batch_size=1, collate_fn=_first, shuffle=False, generator=drawn),
                ckpt_path=None if checkpoint is None else str(checkpoint),
                weights_only=False,
            )
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        if is_out_of_memory(error):
            raise out_of_memory(config, error) from error
        if compiled and is_of_compiling(error):
            raise MicrogptError(
                f"the model could not be compiled: {printable(complaint(str(error)))}",
                "take device.compile=off, beside resume= where steps were saved",
            ) from error
        if checkpoint is not None and not module.began:
            raise unfit(checkpoint, error) from error
        raise
    seconds = time.monotonic() - module.began_at
    profile: list[tuple[str, float, float]] = []
    if profiler is not None:
        profile = write(folder.path, profiler.end())
        folder.log_metrics(module.steps_done, {f"profile/{name}_pct": share for name, _, share in profile})
    pruned = pruning is not None and pruning.pruned
    return Fitted(module, seconds, module.steps_done < module.schedule.end and not pruned, pruned, profile)


def unfit(checkpoint: Path, error: Exception) -> ModelError:
    """What to tell of a checkpoint whose files are whole, but not those of this run."""
    return ModelError(
        f"{checkpoint} cannot be resumed from: {(str(error).splitlines() or [''])[0][:120]} ({type(error).__name__})",
        "take another checkpoint",
    )
