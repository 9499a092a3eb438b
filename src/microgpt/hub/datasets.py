"""Data sets to choose from, their size, and what their first rows look like."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from microgpt import files
from microgpt.config.schema import DataConfig
from microgpt.data.sources import CORPORA, ENDINGS, TEXT_ENDINGS
from microgpt.errors import printable

LOOK_BYTES = 1 << 20
SHOWN_FILES = 400


def corpus_path(name: str) -> Path | None:
    """The file of a named corpus where it is at hand already; nothing is downloaded."""
    import os

    corpus = CORPORA[name]
    places = [files.shipped("corpora") / corpus.file] if not corpus.sha256 else []
    if given := os.environ.get("MICROGPT_DATA_DIR"):
        places.append(Path(given) / corpus.file)
    places.append(files.cache_folder() / "data" / name / corpus.file)
    return next((p for p in places if p.is_file()), None)


def paths_of(data: DataConfig) -> list[Path]:
    """The files that a config means, as far as they are at hand."""
    found: list[Path] = []
    for entry in data.mixture or data.path or [data.corpus]:
        name = entry.rpartition(":")[0] if data.mixture else entry
        if name in CORPORA and (data.mixture or not data.path):
            path = corpus_path(name)
            found += [path] if path else []
            continue
        with suppress(OSError, ValueError):
            given = Path(name).expanduser()
            if given.is_dir():
                found += sorted(p for p in given.rglob("*") if p.suffix in (*TEXT_ENDINGS, *ENDINGS))[:SHOWN_FILES]
            else:
                found += [Path(p) for p in islice(glob.iglob(str(given), recursive=True), SHOWN_FILES)]
    return [p for p in found if p.is_file()]


def size_of(data: DataConfig) -> tuple[int, int]:
    """(bytes, different characters) of a config's data; the characters are those of its first megabyte."""
    total, characters = 0, set[str]()
    for path in paths_of(data):
        with suppress(OSError):
            total += path.stat().st_size
            with open(path, encoding="utf-8", errors="replace") as file:
                characters.update(file.read(LOOK_BYTES))
    characters.discard("\n")
    return total, len(characters)


def nearby(folder: Path) -> Iterator[Path]:
    """Folders and data files in a folder, folders first; hidden ones are left out."""
    with suppress(OSError):
        entries = sorted(folder.iterdir(), key=lambda p: (not p.is_dir(), p.name.lower()))
        for path in entries[:SHOWN_FILES]:
            if not path.name.startswith(".") and (path.is_dir() or path.suffix in (*TEXT_ENDINGS, *ENDINGS)):
                yield path


def preview(path: Path, rows: int = 12) -> list[str]:
    """The first rows of a file as a person reads them."""
    if path.suffix == ".parquet":
        return ["a Parquet file: v checks it and shows what is in it"]
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = list(islice((file.readline(4096) for _ in range(rows)), rows))
    except OSError as error:
        return [f"cannot be read: {error.strerror}"]
    found = [printable(line.rstrip("\n")) for line in lines if line]
    return [_row(line) for line in found] if path.suffix in ENDINGS else found


def _row(line: str) -> str:
    """A JSON row as `role: text` or `field: text`."""
    try:
        value: object = json.loads(line)
    except (ValueError, RecursionError):
        return line
    turns = value.get("messages", value) if isinstance(value, dict) else value
    if isinstance(turns, list):
        return "  ".join(f"{t.get('role', '?')}: {t.get('content', '')}" for t in turns if isinstance(t, dict))
    if isinstance(turns, dict):
        return "  ".join(f"{k}: {v}" for k, v in turns.items())
    return line
