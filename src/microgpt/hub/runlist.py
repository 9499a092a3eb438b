"""All runs: the folders, and those that only MLflow's store knows."""

from __future__ import annotations

import math
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from microgpt.errors import ModelError
from microgpt.runs.find import Run, all_runs
from microgpt.runs.folder import read_config
from microgpt.tracking.address import SQLITE, sqlite_file

STORE = SQLITE + "mlruns/mlflow.db"


@dataclass
class RunRow:
    """A run in the table.

    Attributes:
        path: the run folder; None where only MLflow knows the run.
        name: of the folder, or MLflow's.
        values: what can be sorted and filtered by.
    """

    path: Path | None
    name: str
    values: dict[str, Any] = field(default_factory=dict[str, Any])


def row_of(run: Run) -> RunRow:
    """A run folder as a row."""
    facts = run.facts
    values: dict[str, Any] = {
        "name": run.path.name,
        "status": run.status,
        "steps": facts.get("steps", 0),
        "max_steps": facts.get("max_steps", 0),
        "val_loss": run.val_loss if math.isfinite(run.val_loss) else None,
        "val_bpb": run.val_bpb if math.isfinite(run.val_bpb) else None,
        "parameters": facts.get("parameters"),
        "tokens": facts.get("tokens"),
        "seconds": facts.get("train_seconds"),
        "started": str(facts.get("started", ""))[:19].replace("T", " "),
        "device": facts.get("device"),
        "path": str(run.path),
    }
    return RunRow(run.path, run.path.name, values)


def mlflow_rows(known: set[str], uri: str = "") -> Iterator[RunRow]:
    """Runs of a sqlite store that no folder belongs to; read without MLflow, and without locking it.

    Args:
        known: MLflow ids of the folders.
        uri: of the store; empty: MLFLOW_TRACKING_URI, then ./mlruns. Other stores than sqlite give nothing.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or STORE
    path = sqlite_file(uri)
    if path is None or not path.is_file():
        return
    query = (
        "SELECT r.run_uuid, r.name, r.status, r.start_time, m.key, m.value FROM runs r JOIN latest_metrics m "
        "ON m.run_uuid = r.run_uuid WHERE r.lifecycle_stage = 'active' "
        "AND m.key IN ('val/loss', 'val/bpb', 'train/loss')"
    )
    found: dict[str, RunRow] = {}
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=0.2)) as store:
        for uuid, name, status, started, key, value in store.execute(query):
            if uuid in known:
                continue
            when = datetime.fromtimestamp((started or 0) / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
            row = found.setdefault(uuid, RunRow(None, str(name or uuid)))
            row.values |= {"name": row.name, "status": status, "started": when, "path": f"mlflow {uuid}"}
            short = {"val/loss": "val_loss", "val/bpb": "val_bpb"}.get(key)
            if short and isinstance(value, float) and math.isfinite(value):
                row.values[short] = value
    yield from found.values()


def all_rows(outputs: Path) -> list[RunRow]:
    """Every run, the newest first."""
    runs = all_runs(outputs)
    rows = [row_of(run) for run in runs]
    rows += mlflow_rows({run.mlflow_id for run in runs})
    return sorted(rows, key=lambda row: str(row.values.get("started", "")), reverse=True)


_configs: dict[Path, dict[str, Any]] = {}


def config_values(path: Path) -> dict[str, Any]:
    """The config of a run by dotted key; nothing where it cannot be read."""
    if path not in _configs:
        _configs[path] = {}
        with suppress(ModelError):
            for key, value in read_config(path).items():
                inner = cast("dict[str, Any]", value) if isinstance(value, dict) else None
                _configs[path].update(
                    {f"{key}.{k}": v for k, v in inner.items()} if inner is not None else {key: value}
                )
    return _configs[path]


def with_config(row: RunRow) -> dict[str, Any]:
    """What a filter can name: the row's own values first, then its config's."""
    config = config_values(row.path) if row.path is not None else {}
    return {**row.values, **{k: v for k, v in config.items() if k not in row.values}}


def differences(rows: Sequence[RunRow]) -> list[tuple[str, list[str]]]:
    """(what, its value in each run) of everything in which runs differ, results first."""
    told = [with_config(row) for row in rows]
    keys = list(dict.fromkeys(key for values in told for key in values))
    found: list[tuple[str, list[str]]] = []
    for key in keys:
        if key in ("name", "path", "schema_version"):
            continue
        cells = [_cell(values.get(key)) for values in told]
        if len(set(cells)) > 1:
            found.append((key, cells))
    return found


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.6g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
