"""What a session trains: from a start request to a config with every auto resolved, and its data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from microgpt.checkpoints.folder import TOKENIZER, find
from microgpt.config.auto import Facts, resolved, resolved_shape
from microgpt.config.build import build, nearest, plain
from microgpt.config.compose import compose, migrated
from microgpt.config.schema import TrainConfig
from microgpt.data.mixture import Prepared, prepare_all
from microgpt.data.sources import CORPORA
from microgpt.errors import DataError, UsageError
from microgpt.lab.messages import Start
from microgpt.lab.options import MOST_PARAMETERS, PRESETS
from microgpt.model.shapes import parameter_shapes
from microgpt.runs.folder import read_config
from microgpt.tokenizer.load import load_tokenizer

GROUPS = ("model", "data", "tokenizer", "optimizer", "sampling")
#: keys that name files, and those that a session sets itself
CLOSED = {"data.path", "data.mixture", "data.format", "data.workers", "data.tokenize_workers", "data.corpus"}
TRAINER = {"trainer.accumulate", "trainer.eval_interval", "trainer.eval_batches"}
VALIDATIONS = 20
VAL_ROWS = 64


@dataclass(frozen=True)
class Recipe:
    """A config and its data.

    Attributes:
        config: every auto resolved.
        prepared: tokenized.
    """

    config: TrainConfig
    prepared: Prepared


def allowed(key: str) -> bool:
    """Whether a start request may set this key."""
    return (key.partition(".")[0] in GROUPS and key not in CLOSED) or key in TRAINER


def configured(start: Start) -> TrainConfig:
    """The config that a start request means, with autos.

    Raises:
        UsageError: a value is impossible, naming key, value and range.
    """
    if start.model not in PRESETS:
        raise UsageError(f"model={start.model}{nearest(start.model, PRESETS)}", f"choose one of {', '.join(PRESETS)}")
    if start.data not in CORPORA:
        raise UsageError(f"data={start.data}{nearest(start.data, CORPORA)}", f"choose one of {', '.join(CORPORA)}")
    words = [f"model={start.model}", f"data={start.data}", f"tokenizer={start.tokenizer}"]
    values = plain(compose([*words, f"optimizer={start.optimizer}", "tracking=off"]))
    small = start.model in ("micro_first", "micro")
    sizes = ("n_embd", "n_head", "n_layer", "block_size")
    given = sizes if start.model == "micro_first" else [s for s in sizes if s in start.model_fields_set]
    values["model"] |= {size: getattr(start, size) for size in given}
    values["data"] |= {"batch_size": start.batch_size, "packing": values["data"]["packing"] and not small}
    values["optimizer"] |= {"learning_rate": start.learning_rate, "schedule": "cosine", "warmup_steps": 0}
    values["optimizer"] |= {"grad_clip": 0.0} if small else {}
    values["trainer"] |= {"max_steps": start.num_steps, "eval_interval": max(1, start.num_steps // VALIDATIONS)}
    values["sampling"] |= {"temperature": start.temperature, "top_k": 0, "top_p": 1.0}
    values["seed"], values["name"], values["tracking"]["progress"] = start.seed, start.name, False
    for key, value in start.settings.items():
        group, _, leaf = key.partition(".")
        if not allowed(key) or leaf not in values[group]:
            raise UsageError(f"settings: {key[:64]} is no key that a session may set", "see docs/configuration.md")
        values[group][leaf] = value
    config = build(TrainConfig, values)
    config.device.name, config.device.precision = "cpu", "f32"
    return config


def prepared_recipe(config: TrainConfig, tokenizer: Path | None = None) -> Recipe:
    """The data of a config, and the config with every auto resolved by it.

    Args:
        config: with autos.
        tokenizer: of another session or run, which the data is read with.

    Raises:
        DataError, UsageError: the data cannot be had or read, or the model would be too large.
    """
    given = None if tokenizer is None else load_tokenizer(tokenizer)
    if given is not None:
        config.tokenizer.kind, config.tokenizer.vocab_size = given.kind, max(258, given.vocab_size)
    prepared = prepare_all(config.data, config.tokenizer, given, False, config.model.block_size)
    vocab = prepared.tokenizer.vocab_size
    if given is not None and vocab != given.vocab_size:
        raise DataError("the data needs tokens that the model does not have", "choose data of the same kind")
    size = sum(math.prod(shape) for shape in parameter_shapes(config.model, vocab).values())
    if size > MOST_PARAMETERS:
        raise UsageError(f"the model would have {size:,} parameters", f"the lab trains up to {MOST_PARAMETERS:,}")
    positions = prepared.facts["train"]["positions"]
    config = resolved_shape(config, positions, size)
    rows = sum(b.rows.per_epoch for b in prepared.val_batches(config.data, config.model.block_size, 1))
    return Recipe(resolved(config, Facts(rows, 6 * size, positions, size)), prepared)


def of_run(folder: Path) -> Recipe:
    """What a run folder of `microgpt.train` was trained on.

    Raises:
        MicrogptError: its record or data cannot be read.
    """
    config = build(TrainConfig, migrated(read_config(folder)))
    config.tracking.progress = False
    return prepared_recipe(config, find(folder / "checkpoints", "latest") / TOKENIZER)
