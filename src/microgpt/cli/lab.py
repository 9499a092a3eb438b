"""The verb `lab`: watch a GPT learn in the browser."""

from __future__ import annotations

from typing import Annotated

import typer

from microgpt import errors, runtime
from microgpt.cli.app import AllowedHost, AllowedOrigin, ApiKey, Host, Port, app


@app.command()
def lab(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    api_key: ApiKey = "",
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    sessions: Annotated[int, typer.Option(min=1, max=64, help="Sessions at the same time.")] = 8,
    expire: Annotated[
        float, typer.Option(min=1, max=1e6, help="Seconds until an idle session that nobody watches is ended.")
    ] = 3600,
    run: Annotated[str, typer.Option(help="Follow a run: a run folder, an MLflow run id, latest or best.")] = "",
    tracking: Annotated[str, typer.Option(help="mlflow, server or off: where ended sessions go as runs.")] = "mlflow",
) -> None:
    """Open the browser lab: a model trains on the page, with everything inside it visible."""
    if tracking not in ("mlflow", "server", "off"):
        raise errors.UsageError(f"--tracking {tracking}", "choose mlflow, server or off")
    runtime.prepare_process()
    try:
        from microgpt.lab.api import make_app
        from microgpt.lab.replay import LIMIT
        from microgpt.lab.sessions import Limits
        from microgpt.web.security import Security
        from microgpt.web.server import serve, websocket_protocol

        if websocket_protocol() == "none":
            raise ModuleNotFoundError(name="websockets")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("microgpt"):
            raise
        raise errors.UsageError(
            f"the lab needs {error.name}, which is not installed", "pip install 'microgpt[lab]'"
        ) from None
    from microgpt.runs.find import find_run

    followed = find_run(run).path if run else None
    limits = Limits(sessions=sessions, expire_s=expire, tracking=tracking)
    settings = Security(
        host=host,
        port=port,
        api_key=api_key or None,
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        body_limits={"/api/trace": LIMIT},
        open_paths=("/", "/api/health", "/favicon.ico", "/static/"),
    )

    def listening(url: str) -> None:
        if browser:
            import webbrowser

            webbrowser.open(url)

    serve(make_app(limits, followed), settings, name="microgpt lab", listening=listening)
