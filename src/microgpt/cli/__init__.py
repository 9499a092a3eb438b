"""`microgpt VERB`: thin, and quick to start. No verb imports torch, Lightning or MLflow before it must."""

from __future__ import annotations

import sys

from microgpt import errors, runtime
from microgpt.cli import hub, importing, lab, models, runs, serve, stages, talk, team
from microgpt.cli.app import app
from microgpt.cli.models import generate
from microgpt.cli.talk import chat, chat_once, default_chat_model

__all__ = [
    "app",
    "chat",
    "chat_once",
    "default_chat_model",
    "generate",
    "hub",
    "importing",
    "lab",
    "main",
    "models",
    "runs",
    "serve",
    "stages",
    "talk",
    "team",
]


def main() -> None:
    """Entry point of the `microgpt` command."""
    runtime.quiet_libraries()

    def run() -> None:
        app(standalone_mode=True)

    sys.exit(errors.guarded(run))
