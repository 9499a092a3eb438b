"""Addresses of tracking stores: the driver that is installed is named, and passwords stand apart."""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

SQLITE = "sqlite:///"
POSTGRESQL = "postgresql+psycopg2"
#: where MLflow and PostgreSQL's own library look for what an address does not say
VARIABLES = {
    "http": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    "https": ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"),
    POSTGRESQL: ("", "PGPASSWORD"),
}


def sqlite_file(uri: str) -> Path | None:
    """The file of a SQLite store, which SQLAlchemy reads up to a question mark; None of other stores."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]) if uri.startswith(SQLITE) else None


def with_driver(uri: str) -> str:
    """`postgresql://` as the driver of the extra `team`; SQLAlchemy's own choice is another."""
    scheme, found, rest = uri.partition("://")
    return f"{POSTGRESQL}://{rest}" if found and scheme in ("postgresql", "postgres") else uri


def without_password(uri: str, environment: MutableMapping[str, str] = os.environ) -> str:
    """The address as libraries get it, so that no message of theirs can show the password.

    Args:
        uri: of a server or database, perhaps as `scheme://user:password@host/...`.
        environment: gets the user and password, where the address has them.
    """
    uri = with_driver(uri)
    scheme, _, rest = uri.partition("://")
    if scheme not in VARIABLES:
        return uri
    if scheme.startswith("http"):
        parts = urlsplit(uri)
        info, at, _ = parts.netloc.rpartition("@")
        behind = rest[len(info) + len(at) :]
    else:  # as SQLAlchemy reads it: a password may hold a slash
        info, at, behind = rest.partition("?")[0].rpartition("@")
        behind = rest[len(info) + len(at) :]
    user, colon, password = info.partition(":")
    if not colon:
        return uri
    for name, value in zip(VARIABLES[scheme], (user, password)):
        if name:
            environment[name] = unquote(value)
    keeps_user = not VARIABLES[scheme][0]
    return f"{scheme}://{user}@{behind}" if keeps_user else f"{scheme}://{behind}"
