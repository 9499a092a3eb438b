"""MLflow's model registry: a model directory under a name and an alias."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from microgpt.config.schema import TrackingConfig
from microgpt.errors import ModelError
from microgpt.tracking.start import tracking_uri

NAME = "microgpt"


def register(folder: Path, run_id: str, alias: str, tracking: TrackingConfig, name: str = NAME) -> str:
    """Log a model directory to a run and let an alias name it.

    Returns:
        The address of the model, `models:/name@alias`.
    """
    from mlflow.exceptions import MlflowException

    from microgpt.tracking.store import open_client

    client = open_client(tracking_uri(tracking))
    client.log_artifacts(run_id, str(folder), "model")
    try:
        client.create_registered_model(name)
    except MlflowException:  # it is there already
        client.get_registered_model(name)
    source = f"{client.get_run(run_id).info.artifact_uri}/model"
    version: Any = client.create_model_version(name, source=source, run_id=run_id)
    client.set_registered_model_alias(name, alias, version.version)
    return f"models:/{name}@{alias}"


def registered(reference: str, tracking: TrackingConfig) -> Path:
    """The folder of `models:/name@alias`.

    Raises:
        ModelError: there is no such model, or its files are not on this machine.
    """
    from mlflow.exceptions import MlflowException

    from microgpt.tracking.store import open_client

    name, _, alias = reference.removeprefix("models:/").partition("@")
    try:
        client = open_client(tracking_uri(tracking))
        version: Any = client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        raise ModelError(f"{reference} is not registered ({str(error)[:80]})", "see `microgpt ui`, Models") from None
    address = urlparse(version.source)
    if address.scheme in ("", "file"):
        return Path(unquote(address.path))
    import mlflow.artifacts

    return Path(mlflow.artifacts.download_artifacts(artifact_uri=version.source))
