"""The verb `hub`: everything in the terminal."""

from __future__ import annotations

from typing import Annotated

import typer

from microgpt import errors
from microgpt.cli.app import app


@app.command()
def hub(
    run: Annotated[str, typer.Argument(help="A run to watch: folder, MLflow id, latest or best.")] = "",
    tab: Annotated[str, typer.Option(help="train, monitor, logs, runs, models or chat.")] = "",
    theme: Annotated[str, typer.Option(help="dark, light, safe (colour-blind) or plain (no colour).")] = "",
    ascii: Annotated[bool, typer.Option("--ascii", help="Draw with ASCII alone.")] = False,
) -> None:
    """Configure, start, watch, compare and talk to models in the terminal."""
    import sys

    if tab not in ("", "train", "monitor", "logs", "runs", "models", "chat"):
        raise errors.UsageError(f"--tab {tab}: there is no such tab", "see `microgpt hub --help`")
    if theme not in ("", "dark", "light", "safe", "plain"):
        raise errors.UsageError(f"--theme {theme}: there is no such theme", "use dark, light, safe or plain")
    if not sys.stdin.isatty() or not sys.stdout.isatty():
        raise errors.UsageError("the hub needs a terminal", "use `microgpt runs` and `microgpt train` in scripts")
    try:
        from microgpt.hub.app import HubApp
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("microgpt"):
            raise
        raise errors.UsageError(
            f"the hub needs {error.name}, which is not installed", "pip install 'microgpt[hub]'"
        ) from None
    made = HubApp(
        ascii_only=True if ascii else None, theme=theme, run=run, tab=tab or ("monitor" if run else "train")
    )
    made.run()
    raise typer.Exit(made.return_code or 0)
