"""MLflow's store: made once under a lock, from a template where there is one, and written to in batches."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.errors import DiskError, UsageError, printable, redacted
from microgpt.tracking.address import POSTGRESQL, SQLITE, sqlite_file, with_driver, without_password

#: artifacts of a database that no server stands before
DIRECT_ARTIFACTS = "mlruns/artifacts"
#: any number, the same for all who make tables; seconds to connect
SCHEMA_LOCK, CONNECT_SECONDS = 0x6D6C666C6F77, 10
MAX_PARAM, MAX_PARAMS, MAX_METRICS = 6000, 100, 1000


def settings() -> dict[str, str]:
    """URI and experiment as `tracking.start` passed them to this process."""
    given: dict[str, str] = json.loads(os.environ.get("MICROGPT_TRACKING", "{}"))
    uri = given.get("uri") or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    return {"uri": uri, "experiment": given.get("experiment", "microgpt")}


class StoreFile:
    """Tells whether a sqlite store is still the file that it was.

    MLflow goes on writing into a deleted file without a word. The file is held open, so that its inode cannot become
    a new store's, and never closed: closing would drop the locks that SQLite holds in this process.

    Args:
        uri: of the store; what is no file is never gone.
    """

    def __init__(self, uri: str) -> None:
        self.path = sqlite_file(uri)
        self._handle = -1 if self.path is None else os.open(self.path, os.O_RDONLY)

    def is_gone(self) -> bool:
        """Whether the file was deleted, moved away or replaced."""
        if self.path is None:
            return False
        try:
            return not os.path.samestat(os.fstat(self._handle), self.path.stat())
        except FileNotFoundError:
            return True


def refuse_damaged(path: Path) -> None:
    """Look into a store at once: MLflow tries a damaged one for two minutes.

    Raises:
        DiskError: it is no database.
    """
    try:
        with closing(sqlite3.connect(path, timeout=1)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        return  # locked or not to be read: it may be better in a moment
    except sqlite3.DatabaseError as error:
        raise DiskError(
            f"the MLflow store {path} is damaged ({error})",
            "move it away; python -m microgpt.tracking.feeder RUN_FOLDER sends a run to a new one",
        ) from None


def ensure_schema(uri: str) -> None:
    """Make a store in a database where there is none. Eight first runs at once make it once.

    Making the schema takes MLflow seconds; for sqlite a copy of an earlier one of the same version takes none.

    Raises:
        DiskError: there is no database, or none that answers.
    """
    if uri.startswith(POSTGRESQL):
        _ensure_tables(uri)
    path = sqlite_file(uri)
    if path is None:
        return
    if path.exists():
        refuse_damaged(path)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.waiting_lock(path.parent / ".mlflow.lock"):
        if path.exists():
            return
        from mlflow.version import VERSION

        files.remove_leftovers(path.parent, path.name)  # of a process that was killed at this
        template = files.cache_folder() / f"mlflow-{VERSION}.db"
        fresh = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        if not template.exists():
            print("making the MLflow store; once for this version of MLflow", file=sys.stderr, flush=True)
            _make_schema(fresh)
            template.parent.mkdir(parents=True, exist_ok=True)
            copy = template.with_name(f".{template.name}.{os.getpid()}.tmp")
            shutil.copyfile(fresh, copy)
            os.replace(copy, template)
        else:
            shutil.copyfile(template, fresh)
        with closing(sqlite3.connect(fresh)) as database:
            artifacts = (path.parent / "artifacts").resolve().as_uri()
            database.execute("UPDATE experiments SET artifact_location = ?", (f"{artifacts}/0",))
            database.commit()
            database.execute("PRAGMA journal_mode=WAL")  # readers and a writer at once; stays with the file
        os.replace(fresh, path)


def _ensure_tables(uri: str) -> None:
    """Look into a database at once, which MLflow tries for minutes, and make the tables under a lock of its own."""
    from sqlalchemy import NullPool, create_engine, inspect, text
    from sqlalchemy.exc import SQLAlchemyError

    try:
        engine = create_engine(uri, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
        with engine.connect() as database:
            if inspect(database).has_table("alembic_version"):
                return
            database.execute(text(f"SELECT pg_advisory_lock({SCHEMA_LOCK})"))  # goes with the connection
            if inspect(database).has_table("alembic_version"):
                return
            from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

            print("making the MLflow store; once for a database", file=sys.stderr, flush=True)
            SqlAlchemyStore(uri, DIRECT_ARTIFACTS).engine.dispose()
    except (SQLAlchemyError, ImportError) as error:
        said = redacted(printable(str(error)))[:200]
        raise DiskError(
            f"the MLflow store {redacted(uri)} does not answer ({said})",
            "start it, check MLFLOW_TRACKING_URI, or pip install 'microgpt[team]'",
        ) from None


def _make_schema(path: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(f"{SQLITE}{path}", str(path.parent))
    store.engine.dispose()


def open_client(uri: str) -> Any:
    """An MLflow client on a store that is there."""
    import mlflow
    from mlflow import MlflowClient

    uri = without_password(uri)
    ensure_schema(uri)
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri)


def experiment_id(client: Any, uri: str, name: str) -> str:
    """The id of an experiment, which is made where it is missing.

    Raises:
        UsageError: its artifacts are kept by a server, and this is not its address.
    """
    from mlflow.exceptions import MlflowException

    found = client.get_experiment_by_name(name)
    if found is not None:
        if str(found.artifact_location).startswith("mlflow-artifacts:") and not uri.startswith("http"):
            raise UsageError(
                f"the artifacts of the experiment {name} are behind a tracking server",
                "give its http address in MLFLOW_TRACKING_URI, or take another tracking.experiment=",
            )
        return str(found.experiment_id)
    location = None
    if with_driver(uri).startswith(POSTGRESQL):
        location = (Path(DIRECT_ARTIFACTS) / name).resolve().as_uri()
    elif file := sqlite_file(uri):
        location = (file.parent / "artifacts" / name).resolve().as_uri()
    try:
        return str(client.create_experiment(name, artifact_location=location))
    except MlflowException:  # another process was faster
        return str(client.get_experiment_by_name(name).experiment_id)


def log_params(client: Any, run_id: str, values: dict[str, Any]) -> None:
    """Log parameters whole, as far as MLflow takes them (6,000 characters), in groups of 100."""
    from mlflow.entities import Param

    params = [Param(key, str(value)[:MAX_PARAM]) for key, value in values.items()]
    for start in range(0, len(params), MAX_PARAMS):
        client.log_batch(run_id, params=params[start : start + MAX_PARAMS])
