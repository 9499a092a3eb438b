"""Points that go straight into a SQLite store are the rows that MLflow would have written."""

from __future__ import annotations

import math
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from microgpt.tracking.points import Point, Points

RUN, OTHER = "train/loss", "val/loss"
GIVEN = [
    Point(RUN, 3.5, 1000, 0),
    Point(RUN, math.nan, 1001, 1),
    Point(OTHER, math.inf, 1001, 1),
    Point(OTHER, -math.inf, 1002, 2),
    Point(RUN, 2.5, 1003, 3),
    Point(RUN, 9.0, 1004, 2),  # behind one of a later step
    Point(RUN, 2.5, 1003, 3),  # the same again
]


@pytest.fixture
def client(tmp_path: Path) -> Any:
    from microgpt.tracking.store import open_client

    return open_client(f"sqlite:///{tmp_path / 'a b#.db'}")


@pytest.fixture
def path(client: Any, tmp_path: Path) -> Path:
    return tmp_path / "a b#.db"


def new_run(client: Any) -> str:
    return str(client.create_run("0").info.run_id)


def rows(path: Path, run_id: str) -> list[list[tuple[Any, ...]]]:
    """What both tables hold of a run."""
    found = []
    with closing(sqlite3.connect(path)) as database:
        for table in ("metrics", "latest_metrics"):
            wanted = f"SELECT key, value, timestamp, step, is_nan FROM {table} WHERE run_uuid = ? ORDER BY 1, 4, 3"
            found.append(database.execute(wanted, (run_id,)).fetchall())
    return found


@pytest.mark.parametrize("groups", [[GIVEN], [GIVEN[:3], GIVEN[3:]], [GIVEN[4:], GIVEN[:4]], [GIVEN, GIVEN]])
def test_the_rows_are_those_that_mlflow_writes(client: Any, path: Path, groups: list[list[Point]]) -> None:
    from mlflow.entities import Metric

    ours, theirs = new_run(client), new_run(client)
    points = Points(path)
    assert points.known
    for group in groups:
        points.insert(ours, group)
        client.log_batch(theirs, metrics=[Metric(*point) for point in group])
    assert rows(path, ours) == rows(path, theirs)
    assert len(rows(path, ours)[0]) == 6


def test_mlflow_reads_what_was_written_and_goes_on_from_it(client: Any, path: Path) -> None:
    run_id = new_run(client)
    Points(path).insert(run_id, GIVEN)
    assert client.get_run(run_id).data.metrics[RUN] == 2.5
    assert [m.step for m in client.get_metric_history(run_id, RUN)] == [0, 1, 3, 2]
    client.log_metric(run_id, RUN, 1.5, step=4)
    assert client.get_run(run_id).data.metrics[RUN] == 1.5


def test_a_run_that_is_not_in_the_store_is_refused_whole(client: Any, path: Path) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        Points(path).insert("0" * 32, GIVEN)
    assert rows(path, "0" * 32) == [[], []]


def test_a_store_that_is_gone_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        Points(tmp_path / "mlflow.db")
    assert not (tmp_path / "mlflow.db").exists()


def test_a_table_with_a_column_more_is_left_to_mlflow(client: Any, path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        database.execute("ALTER TABLE metrics ADD COLUMN unit TEXT")
    assert not Points(path).known
