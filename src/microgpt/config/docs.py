"""`python -m microgpt.config.docs`: docs/configuration.md, made from the schema and the YAML that ships."""

from __future__ import annotations

import sys
from typing import Any

from microgpt.config.auto import (
    CALL_FLOPS,
    EPOCHS,
    EVAL_BATCHES,
    EVAL_FLOPS,
    EVAL_SHARE,
    EVALUATIONS,
    MAX_STEPS,
    MIN_STEPS,
    TOKENS_A_BATCH,
)
from microgpt.config.build import Setting, groups, settings
from microgpt.config.schema import STAGES, TrainConfig
from microgpt.config.search import options, shipped_conf

INTRO = """\
# Configuration

*Made from the schema by `python -m microgpt.config.docs`; a test holds this page equal to what that prints.*

Every stage is a command, `python -m microgpt.train` for example, and takes its settings as words `key=value`.
`--help` prints the keys of a stage with their defaults and ranges. All mistakes are reported at once, each with
its key, value, range and the nearest valid name; the exit code is then 2.

## How a config is composed

1. The defaults of the schema, the tables below.
2. One choice from each group: `model=small` takes `conf/model/small.yaml`, which holds only what differs from the
   defaults.
3. An experiment, if one is given: `experiment=names` sets any keys of any group.
4. Single keys from the command line: `model.n_layer=3`. They win over all the rest.

```sh
python -m microgpt.train --cfg job experiment=names model.n_layer=3
python -m microgpt.train experiment=names model.n_layer=3 optimizer.learning_rate=0.005 trainer.max_steps=100
```

The first line prints the composed config and stops. A text that holds spaces, commas, `=` or brackets needs quotes
inside the shell's quotes, as in `'data.separator="a, b"'`; a list is written `'run=[latest,best]'`. `key=null`
means auto where the range says so.

## A config folder of your own

Files in `./conf` of the current folder are searched first, then those that ship. So `conf/model/mine.yaml` adds
`model=mine`, and `conf/experiment/mine.yaml` an experiment:

```sh
mkdir -p conf/model conf/experiment
printf 'n_layer: 3\\nn_embd: 96\\nblock_size: 64\\n' > conf/model/mine.yaml
printf '# @package _global_\\ndefaults:\\n  - override /data: names\\n  - override /tokenizer: char\\n  - \
override /model: mine\\n  - _self_\\ntrainer:\\n  max_steps: 200\\n' > conf/experiment/mine.yaml
python -m microgpt.train experiment=mine
```

`--config-dir FOLDER` names one more folder. YAML of your own is read for danger before Hydra sees it: `_target_`,
tags, aliases (`*name`) and environment variables (`${oc.env:...}`) are refused. Of Hydra's own keys only
`hydra.run.dir`, `hydra.sweep.dir`, `hydra.sweep.subdir`, `hydra.verbose` and those of the launcher can be set.

## Sweeps

`-m` runs every combination of comma-separated values, one after another. A trial that fails is reported and the
others go on. The runs lie in `outputs/<date>/<time>-sweep/0`, `1`, ..., and in MLflow under one parent run
([tracking](tracking.md)). Several at a time, on other machines, chosen by Optuna, started again: [sweeps](sweeps.md).

```sh
python -m microgpt.train -m experiment=names optimizer.learning_rate=0.01,0.003 trainer.max_steps=50
```

## Where a run goes

`outputs/<date>/<time>-<data>-<model>` in the current folder. `name=first-try` replaces the last part.
`hydra.run.dir=outputs/first-try` sets the whole path; a folder outside `outputs` works too, but `microgpt runs`
lists only what is below `outputs`.

```sh
python -m microgpt.train data=names tokenizer=char model=micro name=first-try
```
"""

#: what each auto becomes; a test holds these keys equal to the keys of the schema that can be auto
AUTO = {
    "model.depth": "none: the shape is that of the preset and of single keys ([the rules](what-to-try.md)).",
    "model.n_kv_head": "`model.n_head`: every head has keys and values of its own.",
    "model.mlp_hidden": "4 times `model.n_embd`; for swiglu 8/3 of it, up to a multiple of 64.",
    "model.init_std": "1/sqrt(`model.n_embd`), at most 0.08.",
    "data.batch_size": f"{TOKENS_A_BATCH:,} tokens: {TOKENS_A_BATCH:,} // `model.block_size` rows, at least 1.",
    "data.tokenize_workers": "one process a core, up to 16, for text of 32 MB and more and hub data sets; else 0.",
    "tokenizer.vocab_size": "4,096; for a small text one token for every 64 bytes (a multiple of 64, at least 512).",
    "optimizer.learning_rate": "0.64 / `model.n_embd`, at most 0.01 (falls as 1/width: Yang et al. 2022, "
    "arXiv:2203.03466).",
    "optimizer.schedule": "wsd where the run reads the training set once at most, linear where it reads it again.",
    "optimizer.warmup_steps": "`trainer.max_steps` // 50.",
    "trainer.max_steps": f"the training set {EPOCHS} times, from {MIN_STEPS} to {MAX_STEPS:,}.",
    "trainer.eval_interval": f"`trainer.max_steps` // {EVALUATIONS}, but no shorter than what makes {EVAL_BATCHES} "
    "batches a tenth of the time.",
    "trainer.eval_batches": "0 (the whole set) where that costs at most about a tenth of the training time "
    f"({EVAL_SHARE:g} of its tokens, without gradients) or {EVAL_FLOPS:.0e} operations in the whole run; else as "
    f"many batches as that allows, at least {EVAL_BATCHES}, spread evenly over the set.",
    "trainer.checkpoint_interval": "`trainer.eval_interval`.",
    "device.devices": "one a GPU; on the CPU one.",
    "trainer.steps_per_call": f"1 for models whose step takes {CALL_FLOPS:.0e} operations or more; up to 50 for tiny "
    "ones. It changes the speed, never the result.",
}
CHOSEN = {
    "data.format": "by the file's ending: `.jsonl`, `.ndjson` and `.json` are JSONL, `.parquet` is Parquet, the rest "
    "is text.",
    "data.schema": "that of the first row, told by its fields.",
    "device.name": "cuda where there is one, else mps, else cpu.",
    "device.accelerator": "cuda where there is one, else cpu.",
    "device.precision": "bf16 on cuda, and compiled on a CPU that multiplies bf16; f32 elsewhere.",
    "device.compile": "on where the run is estimated to be long enough for it to pay, from operations and the kind "
    "of CPU alone, so that the same command has the same bits; the table at the start says from when; never on mps, "
    "or on a CPU without a C++ compiler that finds Python.h and OpenMP.",
}
STAGE_WORDS = {
    "train": "Train a model.",
    "validate": "Check a data set and report on it. `data`, `tokenizer` and `tracking` are the groups of training.",
    "evaluate": "Score runs on their whole validation set. `device`, `tracking` and `sampling` are the groups of "
    "training.",
    "export": "Write a model for others to load. `tracking` is the group of training.",
    "compare": "Set runs beside each other in a report that stands alone. `tracking` is the group of training; only "
    "`tracking.progress` has a meaning here.",
    "pipeline": "Run the stages of a recipe in order. `tracking` is the group of training.",
}


def _code(text: str) -> str:
    return f"`{text}`" if text else "(empty)"


def _default(item: Setting) -> str:
    if item.default is None:
        return "auto"
    if isinstance(item.default, bool):
        return _code(str(item.default).lower())
    if isinstance(item.default, list):
        words = ",".join(map(str, item.default))  # pyright: ignore[reportUnknownArgumentType]
        return _code(f"[{words}]")
    return _code(str(item.default))


def _type(item: Setting) -> str:
    names = {int: "int", float: "float", str: "text", bool: "bool"}
    return "choice" if item.choices and item.base is str else names.get(item.base, "list")


def _range(item: Setting) -> str:
    if _type(item) in ("text", "list") and not item.choices:
        return "any"
    return item.range.replace("a whole number from ", "").replace("a number from ", "")


def table(items: list[Setting]) -> list[str]:
    """A Markdown table of settings."""
    lines = ["| key | type | default | range | unit | what it is |", "|---|---|---|---|---|---|"]
    for item in items:
        cells = (_code(item.key), _type(item), _default(item), _range(item), item.unit, item.help)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return [*lines, ""]


def first_comment(group: str, option: str) -> str:
    """What a shipped YAML file says of itself in its first line."""
    path = shipped_conf() / group / f"{option}.yaml"
    said = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("# ")]
    words = [line.removeprefix("# ") for line in said if "@package" not in line]
    return words[0] if words else ""


def choices() -> list[str]:
    """The options of every group with what each says of itself."""
    lines = ["## Groups and their options", ""]
    for group in (*groups(TrainConfig), "experiment"):
        lines += [f"### {group}", "", "| option | what it is |", "|---|---|"]
        for option in options(group, [shipped_conf()]):
            lines.append(f"| `{group}={option}` | {first_comment(group, option).replace('|', '/')} |")
        lines.append("")
    return lines


def stage_tables(stage: str, cls: type[Any]) -> list[str]:
    """The keys of a stage: all of training's, of the other stages those that training does not have."""
    lines = [f"## Keys of `microgpt.{stage}`", "", STAGE_WORDS[stage], ""]
    found = list(settings(cls).values())
    lines += table([item for item in found if "." not in item.key])
    if stage == "train":
        for group, kind in groups(cls).items():
            lines += [f"### {group}.*", "", (kind.__doc__ or "").strip(), ""]
            lines += table([item for item in found if item.key.startswith(f"{group}.")])
    return lines


def page() -> str:
    """The whole page."""
    lines = [*INTRO.splitlines(), "", *choices()]
    for stage, cls in STAGES.items():
        lines += stage_tables(stage, cls)
    lines += ["## What auto means", ""]
    lines += [
        "An auto is worked out once, before the first step. For batch size, learning rate, intervals and the like,",
        "the outcome stands in the run's `config.yaml` and in every checkpoint; `resume` and `from_run` use that.",
        "The autos of `model` follow from other keys alone, and stay null there.",
        "",
        "| key | becomes |",
        "|---|---|",
        *(f"| `{key}` | {words} |" for key, words in {**AUTO, **CHOSEN}.items()),
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
