"""The typer application, and what its verbs share: option types, opening a model, printing rows."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from microgpt import errors, runtime

app = typer.Typer(
    name="microgpt",
    help="Train small GPTs, look into them, talk to them and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

ModelDir = Annotated[
    str,
    typer.Option(
        "--model-dir", "-m", help="A run, a checkpoint, a model folder, latest, best or models:/NAME@ALIAS."
    ),
]

Temperature = Annotated[float, typer.Option(min=0, max=100, help="0 takes the likeliest token.")]
MaxTokens = Annotated[int, typer.Option(min=1, max=1_000_000, help="Most tokens of a reply.")]
TopK = Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(min=0.000001, max=1, help="Keep this much probability.")]
Penalty = Annotated[float, typer.Option(min=0.01, max=10, help="Makes recent tokens less likely; 1 is off.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
MinP = Annotated[float, typer.Option(min=0, max=0.999999, help="Drop tokens below this share of the likeliest's.")]
LastN = Annotated[int, typer.Option(min=0, help="How many recent tokens the penalty looks at.")]
MinTokens = Annotated[int, typer.Option(min=0, help="Tokens before the end may come.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends a reply; may be given again.")]

Host = Annotated[str, typer.Option(help="Address to listen on; all but loopback need a key.")]
Port = Annotated[int, typer.Option(min=0, max=65535, envvar="PORT", help="0 takes a free one.")]
ApiKey = Annotated[
    str, typer.Option(envvar="MICROGPT_API_KEY", help="What clients must show as Authorization: Bearer KEY.")
]
AllowedHost = Annotated[
    list[str] | None, typer.Option(help="Further name that clients may use for this server; may be given again.")
]
AllowedOrigin = Annotated[
    list[str] | None, typer.Option(help="Further origin whose pages may write here; may be given again.")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"microgpt {version('microgpt')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every verb."""
    if debug:
        import os

        os.environ["MICROGPT_DEBUG"] = "1"


def open_reference(reference: str) -> Any:
    """The model that a reference means, opened and checked."""
    from microgpt.checkpoints.model import open_model
    from microgpt.tracking.registry import model_folder

    return open_model(model_folder(reference))


def load_reference(reference: str, device: str, slots: int = 8) -> Any:
    """The model that a reference means, ready to write. No torch is imported where there is no GPU."""
    runtime.prepare_process()
    from microgpt.inference.load import load
    from microgpt.tracking.registry import model_folder

    return load(model_folder(reference), device, slots)


def print_rows(rows: dict[str, str]) -> None:
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:<{width}}{errors.printable(value)}")
