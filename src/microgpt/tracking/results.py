"""Results of stages other than training, logged to MLflow from the stage itself."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from microgpt.config.schema import TrackingConfig
from microgpt.errors import redacted
from microgpt.tracking.start import PARENT, tracking_uri


def log_results(
    tracking: TrackingConfig,
    name: str,
    *,
    run_id: str = "",
    metrics: Mapping[str, float] | None = None,
    params: Mapping[str, Any] | None = None,
    artifacts: list[Path] | None = None,
    folder: str = "",
    tags: Mapping[str, str] | None = None,
) -> str:
    """Log to an existing MLflow run, or to a new one that ends at once.

    A store that cannot be reached costs one line, never the stage.

    Args:
        tracking: where; `kind=off` does nothing.
        name: of a new run.
        run_id: an existing run; empty makes a new one.
        metrics, params, artifacts, tags: what is logged.
        folder: of the artifacts, in the run.

    Returns:
        The MLflow run id, or nothing.
    """
    if tracking.kind == "off":
        return ""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")  # a stage does not wait for a server that is silent
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    from microgpt.tracking.stale import owner_tags
    from microgpt.tracking.store import experiment_id, log_params, open_client

    try:
        from mlflow.entities import RunTag

        uri = tracking_uri(tracking)
        client = open_client(uri)
        fresh = True
        if run_id:
            with suppress(Exception):
                client.get_run(run_id)
                fresh = False
        if fresh:
            parent = {"mlflow.parentRunId": os.environ[PARENT]} if os.environ.get(PARENT) else {}
            experiment = experiment_id(client, uri, tracking.experiment)
            tags_of_all = {**parent, **owner_tags(os.getpid())}
            run_id = client.create_run(experiment, run_name=name, tags=tags_of_all).info.run_id
        if params:
            log_params(client, run_id, dict(params))
        for key, value in (tags or {}).items():
            client.log_batch(run_id, tags=[RunTag(key, value)])
        for key, value in (metrics or {}).items():
            client.log_metric(run_id, key, float(value))
        for path in artifacts or []:
            client.log_artifact(run_id, str(path), folder or None)
        if fresh:
            client.set_terminated(run_id, "FINISHED")
    except Exception as error:  # whatever the store says, the stage's own results stand
        print(f"note: not logged to MLflow ({type(error).__name__}: {redacted(str(error))[:120]})", file=sys.stderr)
        return ""
    return run_id
