"""The verb `import`: another program's model as a model directory."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from microgpt import errors, runtime
from microgpt.cli.app import app


@app.command("import")
def import_folder(
    source: Annotated[str, typer.Argument(help="A Hugging Face folder of Llama, Qwen3, Arcee or GPT-2 shape.")],
    output: Annotated[str, typer.Argument(help="Folder to write; it must not be there yet.")],
) -> None:
    """Make a model directory of another program's model; only safetensors and JSON are read."""
    runtime.prepare_process()
    from microgpt.export.importing import import_model

    opened = import_model(Path(source).expanduser(), Path(output).expanduser())
    origin, c = opened.meta["imported"], opened.config
    for note in origin["notes"]:
        print(f"note: {errors.printable(note)}", file=sys.stderr)
    print(
        f"imported {errors.printable(source)} ({errors.printable(origin['kind'])}) to {errors.printable(output)}: "
        f"{c.n_layer} layers x {c.n_embd} wide x {c.n_head} heads, context {c.block_size}, "
        f"{opened.vocab_size:,} tokens\nnext: microgpt generate --model-dir {output}",
        file=sys.stderr,
    )
