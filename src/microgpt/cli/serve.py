"""The verb `serve`: models over HTTP."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from microgpt import errors, runtime
from microgpt.cli.app import AllowedHost, AllowedOrigin, ApiKey, Device, Host, Port, app

DEFAULT = "microgpt"


def sources_of(model_dir: str, models: list[str]) -> dict[str, str]:
    """Names and references of the models that the command line means.

    Raises:
        UsageError: an entry is not `name=folder`, or a name is given twice or cannot be one.
    """
    from microgpt.config.build import is_name

    found: dict[str, str] = {DEFAULT: model_dir} if model_dir else {}
    for entry in models:
        name, separator, reference = entry.partition("=")
        if not separator or not reference or not is_name(name):
            raise errors.UsageError(
                f"--model {entry}: not name=folder",
                "the name has 1 to 64 letters, digits, '.', '_' or '-' and does not begin with a dot",
            )
        if name in found:
            raise errors.UsageError(f"--model {name} is given twice", "choose another name")
        found[name] = reference
    if not found:
        reference = os.environ.get("MODEL_DIR") or ("output" if Path("output").is_dir() else "latest")
        found[DEFAULT] = reference
    return found


@app.command()
def serve(
    model_dir: Annotated[
        str,
        typer.Option("--model-dir", "-m", help="As for generate. [MODEL_DIR, output, latest]"),
    ] = "",
    model: Annotated[list[str] | None, typer.Option(help="name=folder; may be given again.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    api_key: ApiKey = "",
    allowed_host: AllowedHost = None,
    allowed_origin: AllowedOrigin = None,
    slots: Annotated[int, typer.Option(min=1, max=1024, help="Sequences written at the same time.")] = 32,
    max_queue: Annotated[int, typer.Option(min=1, max=100_000, help="Sequences that may wait in line.")] = 128,
    timeout: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that an answer may take.")] = 300,
    device: Device = "auto",
) -> None:
    """Serve models over HTTP: OpenAI's API, a plain one, metrics and a chat page."""
    sources = sources_of(model_dir, model or [])
    runtime.prepare_process()
    try:
        from microgpt.serving.app import make_app
        from microgpt.serving.context import Context
        from microgpt.serving.metrics import Metrics
        from microgpt.serving.models import Capacity, Models
        from microgpt.web.security import Security
        from microgpt.web.server import serve as listen
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("microgpt"):
            raise
        raise errors.UsageError(
            f"the server needs {error.name}, which is not installed", "pip install 'microgpt[serve]'"
        ) from None
    metrics = Metrics()
    models = Models(sources, Capacity(device, slots, max_queue), metrics)
    settings = Security(
        host=host,
        port=port,
        api_key=api_key or None,
        allowed_hosts=tuple(allowed_host or ()),
        allowed_origins=tuple(allowed_origin or ()),
        body_limits={"/microgpt/v1/": 4 << 20},
        concurrency=len(sources) * (slots + max_queue) + 64,
        connections=len(sources) * (slots + max_queue) + 1000,
        answer_s=timeout,
    )
    try:
        app_ = make_app(Context(models, metrics, timeout))
        listen(app_, settings, listening=models.listening, draining=models.drain, observed=metrics.count)
    except errors.Stopped:
        if models.failure is not None:
            raise models.failure from None
        raise
