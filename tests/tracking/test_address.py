"""Passwords stand apart from the addresses that libraries get, and from whatever is shown or saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from microgpt.errors import has_password, redacted
from microgpt.tracking.address import sqlite_file, with_driver, without_password


@pytest.mark.parametrize(
    ("uri", "bare", "environment"),
    [
        ("http://host:5000", "http://host:5000", {}),
        (
            "http://me:p%40ss@host:5000/a@b",
            "http://host:5000/a@b",
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "p@ss"},
        ),
        (
            "https://me:word@[::1]:5000",
            "https://[::1]:5000",
            {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "word"},
        ),
        ("postgresql://me@host/db", "postgresql+psycopg2://me@host/db", {}),
        ("postgres://me:a/b:c@host:1/db", "postgresql+psycopg2://me@host:1/db", {"PGPASSWORD": "a/b:c"}),
        (
            "postgresql+psycopg2://me:word@host/db?sslmode=require",
            "postgresql+psycopg2://me@host/db?sslmode=require",
            {"PGPASSWORD": "word"},
        ),
        ("sqlite:///mlruns/a@b.db", "sqlite:///mlruns/a@b.db", {}),
    ],
)
def test_the_password_goes_where_libraries_look_for_it(uri: str, bare: str, environment: dict[str, str]) -> None:
    found: dict[str, str] = {}
    assert without_password(uri, found) == bare
    assert found == environment
    assert without_password(bare, found) == bare


def test_the_bare_address_is_one_that_sqlalchemy_reads_as_the_same_database() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    uri = "postgresql://me:a%2Fb@host:5432/db?sslmode=require"
    whole, bare = (sqlalchemy.make_url(u) for u in (with_driver(uri), without_password(uri, {})))
    assert bare.set(password="a/b") == whole
    assert bare.get_dialect().driver == "psycopg2"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("at http://me:word@host:5000/x failed", "at http://***@host:5000/x failed"),
        ("https://a-token@host", "https://***@host"),
        ("'postgresql://me:a/b@c@host/db'", "'postgresql://***@host/db'"),
        ("postgresql://host/db?user=me&password=word&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("http://host:5000/path?a=1", "http://host:5000/path?a=1"),
        ("sqlite:////home/me/mlruns/mlflow.db", "sqlite:////home/me/mlruns/mlflow.db"),
        ("mail me@example.org, or models:/microgpt@best", "mail me@example.org, or models:/microgpt@best"),
        ("two: http://a:b@c and http://d:e@f", "two: http://***@c and http://***@f"),
    ],
)
def test_what_is_shown_holds_no_password(text: str, shown: str) -> None:
    assert redacted(text) == shown
    assert redacted(shown) == shown
    assert has_password(text) == (text != shown)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("sqlite:///mlruns/mlflow.db", Path("mlruns/mlflow.db")),
        ("sqlite:////tmp/a b.db", Path("/tmp/a b.db")),
        ("sqlite:///x.db?timeout=30", Path("x.db")),
        ("http://127.0.0.1:5000", None),
    ],
)
def test_a_sqlite_store_is_a_file_and_other_stores_are_none(uri: str, path: Path | None) -> None:
    assert sqlite_file(uri) == path
