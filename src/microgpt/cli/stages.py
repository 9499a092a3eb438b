"""Verbs that run a stage: train, validate-dataset, export. They print the command that they stand for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from microgpt import errors
from microgpt.cli.app import ModelDir, app, open_reference


@app.command()
def train(
    input: Annotated[str, typer.Option("--input", help="Text (a document a line) or JSONL.")] = "",
    output: Annotated[str, typer.Option(help="The run folder.")] = "output",
    steps: Annotated[int, typer.Option(min=1, help="Steps; with --resume: additional ones.")] = 5000,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.01,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Steps of warm-up.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 42,
    chat: Annotated[bool, typer.Option("--chat", help="The input holds conversations.")] = False,
    skip_long: Annotated[bool, typer.Option("--skip-long", help="Leave out what does not fit the context.")] = False,
    n_embd: Annotated[int, typer.Option(help="Width.")] = 64,
    n_head: Annotated[int, typer.Option(help="Heads.")] = 4,
    n_layer: Annotated[int, typer.Option(help="Layers.")] = 2,
    block_size: Annotated[int, typer.Option(help="Context, in tokens.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 8,
    vocab_size: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 4096,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps or metal.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="f32, bf16 or f16.")] = "f32",
    resume: Annotated[str, typer.Option(help="A run folder to go on with.")] = "",
    checkpoint_every: Annotated[int, typer.Option(min=0, help="Steps between checkpoints; 0: with validations.")] = 0,
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Train a model; the same as `python -m microgpt.train`, whose command is printed."""
    device = "mps" if device == "metal" else device
    words = [f"device={device}"]
    if resume:
        # model, rates, batch and data come from the checkpoint; what is given beside it is checked against it
        words += [_word("resume", resume), f"trainer.additional_steps={steps}"]
        words += [_word("data.path", input)] if input else []
        if chat:
            from microgpt.inference.chat import require_chat

            require_chat(open_reference(resume).tokenizer)
    else:
        if chat and input:
            _require_conversations(input)
            words += [f"data.format={_chat_format(input)}"] if _chat_format(input) != "auto" else []
        words += [_word("data.path", input)] if input else ["data=conversations"] if chat else []
        words += [f"data.skip_long={str(skip_long).lower()}", f"data.batch_size={batch_size}"]
        words += [f"trainer.max_steps={steps}", f"optimizer.learning_rate={lr}", f"seed={seed}"]
        words += [f"optimizer.warmup_steps={warmup_steps}", f"model.n_embd={n_embd}", f"model.n_head={n_head}"]
        words += [f"model.n_layer={n_layer}", f"model.block_size={block_size}", f"tokenizer.vocab_size={vocab_size}"]
        words += [f"device.precision={dtype}", _word("hydra.run.dir", output)]
        words += [f"trainer.checkpoint_interval={checkpoint_every}"] if checkpoint_every else []
    words += override or []
    _run_stage("train", words)


def _word(key: str, value: str) -> str:
    """key=value as Hydra reads it, whatever characters the value has."""
    import re

    if re.fullmatch(r"[\w./:@~+-]*", value):
        return f"{key}={value}"
    quoted = re.sub(r"(\\*)'", r"\1\1\\'", value)
    tail = len(quoted) - len(quoted.rstrip("\\"))
    return f"{key}='{quoted}{chr(92) * tail}'"


def _require_conversations(path: str) -> None:
    """Refuse data without a conversation where the user says that it holds some.

    Raises:
        DataError: there is none.
    """
    from microgpt.config.schema import DataConfig
    from microgpt.data.documents import BadRows, read_documents
    from microgpt.data.sources import find_sources

    data, bad = DataConfig(path=[path], format=_chat_format(path)), BadRows()
    if not any(d.turns for d in read_documents(find_sources(data), data, bad)):
        bad.refuse()
        raise errors.DataError(f"{path} holds no conversation", "leave --chat out, or give JSONL of {role, content}")


def _chat_format(path: str) -> str:
    """Conversations in a file are JSONL whatever it is called."""
    return "jsonl" if Path(path).is_file() and Path(path).suffix not in (".jsonl", ".parquet") else "auto"


def _run_stage(stage: str, words: list[str]) -> None:
    """Run a stage in this process, after saying which command that is."""
    import importlib
    import shlex

    print(f"$ python -m microgpt.{stage} {shlex.join(words)}", file=sys.stderr)
    module = importlib.import_module(f"microgpt.{stage}" if stage != "export" else "microgpt.export.__main__")
    sys.argv = [f"microgpt.{stage}", *words]
    raise typer.Exit(module.main())


@app.command("validate-dataset")
def validate_dataset(
    path: Annotated[str, typer.Argument(help="A file, folder or glob.")],
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Check a data set: path, number of records, count by kind, every bad row."""
    _run_stage("validate", [_word("data.path", path), *(override or [])])


@app.command()
def export(
    output: Annotated[str, typer.Option(help="Folder to write.")] = "",
    model_dir: ModelDir = "latest",
    half: Annotated[bool, typer.Option("--half", help="Weights in f16.")] = False,
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Export a model; the same as `python -m microgpt.export`."""
    words = [_word("run", model_dir), f"dtype={'f16' if half else 'f32'}"]
    words += [_word("output", output)] if output else []
    _run_stage("export", [*words, *(override or [])])
