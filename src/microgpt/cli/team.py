"""The verb `tracking-server`: MLflow for a team."""

from __future__ import annotations

from typing import Annotated

import typer

from microgpt.cli.app import app


@app.command("tracking-server")
def tracking_server(
    backend: Annotated[
        str,
        typer.Option(
            envvar="MLFLOW_BACKEND_STORE_URI",
            show_envvar=True,
            help="postgresql://user@host/database; with a password only in the variable. Empty: a PostgreSQL of its "
            "own in mlruns/server.",
        ),
    ] = "",
    artifacts: Annotated[
        str,
        typer.Option(
            envvar="MLFLOW_ARTIFACTS_DESTINATION", help="A folder, s3://... or the like. [mlruns/server/artifacts]"
        ),
    ] = "",
    host: Annotated[
        str, typer.Option(help="Address to listen on; all but loopback need MLFLOW_AUTH_ADMIN_PASSWORD.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port.")] = 5000,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Further name[:port] of this server, as its clients see it.")
    ] = None,
) -> None:
    """Start MLflow on PostgreSQL with an artifact store, for the runs of several people or machines."""
    from microgpt.tracking.server import Served, serve_tracking

    raise typer.Exit(serve_tracking(Served(backend, artifacts, host, port, tuple(allowed_host or ()))))
