"""MLflow's model registry: models under a name, and an alias that the best of them has."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from microgpt.checkpoints.folder import META
from microgpt.checkpoints.model import ModelFolder
from microgpt.config.schema import SamplingConfig, TrackingConfig
from microgpt.errors import ModelError
from microgpt.runs.find import model_path
from microgpt.tracking.start import tracking_uri

NAME, SCHEME = "microgpt", "models:/"
CODE = Path(__file__).with_name("served.py")
#: what a loaded model needs, pinned to what it was made with
NEEDED = ("microgpt", "mlflow", "numpy", "tokenizers")
#: sampling settings that a request may name
PARAMS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "max_new_tokens", "seed")
#: scores by which versions compare, the better measure first; lower is better
SCORES = ("val/bpb", "val/loss")
DATA, EXAMPLE = "data", "a"


def register(
    opened: ModelFolder,
    run_id: str,
    alias: str,
    promote: str,
    tracking: TrackingConfig,
    name: str = NAME,
) -> str:
    """Log a model to a run as an MLflow model, make it a version of a name, and perhaps give it an alias.

    Args:
        opened: the model directory.
        run_id: of MLflow.
        alias: moves to the new version if that is better than the one that has it.
        promote: `better`, or `always` to move the alias whatever the scores are.
        tracking: where MLflow is.
        name: of the registered model.

    Returns:
        What happened, in a line.
    """
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import mlflow
    from mlflow.exceptions import MlflowException

    from microgpt.tracking.store import open_client

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    client = open_client(tracking_uri(tracking))
    scores = {key: float(v) for key, v in opened.meta.get("val", {}).items() if key in SCORES and math.isfinite(v)}
    tags = {key: repr(value) for key, value in scores.items()}
    tags[DATA] = str(opened.meta.get("data", {}).get("fingerprint", ""))
    logged: Any = mlflow.models.Model.log(
        name="model",
        artifact_path=None,
        flavor=mlflow.pyfunc,
        run_id=run_id,
        python_model=str(CODE),
        artifacts={"model": str(opened.path)},
        **_interface(),
        pip_requirements=[f"{package}=={version(package)}" for package in NEEDED],
    )
    try:
        client.create_registered_model(name)
    except MlflowException:  # it is there already
        client.get_registered_model(name)
    source = f"{SCHEME}{logged.model_id}"
    made: Any = client.create_model_version(name, source, run_id, tags=tags, model_id=logged.model_id)
    try:
        holder: Any = client.get_model_version_by_alias(name, alias)
    except MlflowException:
        holder = None
    moves, why = _promoted(tags, None if holder is None else holder.tags, promote)
    said = f"registered as version {made.version} of {name}"
    if holder is not None and not moves:
        return f"{said}; {SCHEME}{name}@{alias} stays version {holder.version}: {why} (promote=always moves it)"
    client.set_registered_model_alias(name, alias, made.version)
    return f"{said}, now {SCHEME}{name}@{alias}: {why}"


def _interface() -> dict[str, Any]:
    """Signature and example of a request; what it does not name is as `microgpt.load` has it."""
    import pandas
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    kinds = {int: "long", float: "double"}
    defaults = {key: getattr(SamplingConfig(), key) for key in PARAMS}
    params = [ParamSpec(key, kinds[type(value)], value) for key, value in defaults.items()]
    signature = ModelSignature(
        Schema([ColSpec("string", "prompt")]), Schema([ColSpec("string")]), ParamSchema(params)
    )
    example = pandas.DataFrame({"prompt": [EXAMPLE]}), {"max_new_tokens": 8}
    return {"signature": signature, "input_example": example}


def _promoted(new: Mapping[str, str], old: Mapping[str, str] | None, promote: str) -> tuple[bool, str]:
    """Whether the alias moves, and why."""
    if old is None:
        return True, "no version had the alias"
    key = next((k for k in SCORES if k in new and k in old), None)
    if key is None:
        moves, why = SCORES[0] not in old and SCORES[1] not in old, "not both have a score"
    else:
        ours, theirs = float(new[key]), float(old[key])
        moves = ours < theirs
        why = f"{key} {ours:.4f} against {theirs:.4f}"
        why += "" if new.get(DATA) == old.get(DATA) else ", scored on other data"
    return (True, f"{why}; promote=always") if promote == "always" else (moves, why)


def registered(reference: str, tracking: TrackingConfig) -> Path:
    """The model directory of `models:/name@alias` or `models:/name/version`.

    Raises:
        ModelError: there is no such model, or its files are not on this machine.
    """
    from mlflow.exceptions import MlflowException

    from microgpt.tracking.store import open_client

    client = open_client(tracking_uri(tracking))
    name, at, alias = reference.removeprefix(SCHEME).partition("@")
    number = ""
    if not at:
        name, _, number = name.rpartition("/")
    try:
        number = number or str(client.get_model_version_by_alias(name, alias).version)
        address = str(client.get_model_version_download_uri(name, number))
    except MlflowException as error:
        raise ModelError(f"{reference} is not registered ({str(error)[:80]})", "see `microgpt ui`, Models") from None
    parsed = urlparse(address)
    if parsed.scheme in ("", "file"):
        folder = Path(unquote(parsed.path))
    else:
        import mlflow.artifacts

        folder = Path(mlflow.artifacts.download_artifacts(artifact_uri=address))
    found = sorted(folder.glob(f"artifacts/*/{META}"))
    if not found:
        raise ModelError(f"{reference} is no model of this project: {folder} holds none", "register it again")
    return found[0].parent


def model_folder(reference: str) -> Path:
    """The model directory that a user means: what `model_path` takes, or `models:/name@alias`.

    Raises:
        ModelError: there is none.
    """
    return registered(reference, TrackingConfig()) if reference.startswith(SCHEME) else model_path(reference)
