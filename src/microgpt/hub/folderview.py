"""What is in a run folder."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rich.text import Text

from microgpt import files
from microgpt.errors import printable
from microgpt.hub.ink import Ink

SHOWN = 200


def folder_text(folder: Path, ink: Ink) -> Text:
    """Files with their sizes, folders with what is in them."""
    text = Text()
    text.append(f"{folder.resolve()}\n", ink.accent)
    text.append(f"{files.human_bytes(files.folder_bytes(folder))} in all\n\n", ink.dim)
    paths = sorted(p for p in folder.rglob("*") if not p.name.startswith("."))
    for path in paths[:SHOWN]:
        depth = len(path.relative_to(folder).parts) - 1
        with suppress(OSError):
            size = "" if path.is_dir() else files.human_bytes(path.stat().st_size)
            name = "  " * depth + printable(path.name) + ("/" if path.is_dir() else "")
            text.append(f"{name:<48}", ink.head if path.is_dir() else ink.text)
            text.append(f"{size:>10}\n", ink.dim)
    if len(paths) > SHOWN:
        text.append(f"and {len(paths) - SHOWN:,} more", ink.dim)
    return text
