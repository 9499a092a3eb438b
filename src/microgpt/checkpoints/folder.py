"""The folder of a checkpoint or model: written whole, checksummed, found again by step.

`<run>/checkpoints/step-000840/` holds the files and `MANIFEST.json` with the sha256 of each; `latest` and `best`
beside it are files with the name of a checkpoint, replaced by rename.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.errors import ModelError, printable

MANIFEST = "MANIFEST.json"
VERSION = 1
WEIGHTS, OPTIMIZER, META, STATE = "weights.safetensors", "optimizer.safetensors", "meta.json", "training_state.json"
TOKENIZER, TOKENIZER_CONFIG = "tokenizer.json", "tokenizer_config.json"


def write_folder(target: Path, contents: Mapping[str, bytes], step: int) -> None:
    """Write a checkpoint so that it is there whole or not at all.

    Args:
        target: the folder; its parent is made.
        contents: file name to bytes.
        step: goes into the manifest; "latest" is decided by it, not by clocks.

    Raises:
        DiskError: it could not be written; what stood there before still stands.
    """
    with files.new_folder(target, sum(map(len, contents.values()))) as folder:
        listed: dict[str, Any] = {}
        for name, content in contents.items():
            (folder / name).write_bytes(content)
            listed[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        _list_files(folder, listed, step)


def write_manifest(folder: Path, step: int) -> None:
    """Write the manifest of the files that lie in a folder."""
    paths = sorted(p for p in folder.iterdir() if p.name != MANIFEST)
    _list_files(folder, {p.name: {"sha256": files.sha256_file(p), "bytes": p.stat().st_size} for p in paths}, step)


def _list_files(folder: Path, listed: dict[str, Any], step: int) -> None:
    manifest = {"version": VERSION, "step": step, "files": listed}
    files.write_json(folder / MANIFEST, {**manifest, "sha256": seal(manifest)})
    verify(folder)  # before it takes the place of anything


def seal(manifest: Mapping[str, Any]) -> str:
    """The sha256 of a manifest's own content, so that a flipped bit in a step or file name is found too."""
    content = {k: v for k, v in manifest.items() if k != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def verify(folder: Path) -> dict[str, Any]:
    """The manifest of a folder whose every file has the size and checksum that it lists.

    Raises:
        ModelError: naming the first file that does not.
    """
    mend = "take another checkpoint, or copy the folder again"
    try:
        manifest: Any = files.read_json(folder / MANIFEST)
        if manifest["version"] > VERSION:
            raise ModelError(f"{folder} was written by a newer microgpt", "update microgpt")
        if manifest["sha256"] != seal(manifest):
            raise ModelError(f"{folder / MANIFEST} is damaged: its sha256 differs", mend)
        for name, entry in manifest["files"].items():
            path = folder / Path(name).name
            if path.stat().st_size != entry["bytes"]:
                raise ModelError(f"{path} has {path.stat().st_size:,} bytes instead of {entry['bytes']:,}", mend)
            if files.sha256_file(path) != entry["sha256"]:
                raise ModelError(f"{path} is damaged: its sha256 differs", mend)
        int(manifest["step"])
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no whole checkpoint: {Path(str(error.filename)).name} is missing", mend
        ) from None
    except OSError as error:
        raise ModelError(f"{folder} cannot be read: {error.strerror}", mend) from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{folder / MANIFEST} is damaged ({type(error).__name__})", mend) from None
    return manifest


def step_name(step: int) -> str:
    """The folder name of the checkpoint at a step."""
    return f"step-{step:06d}"


def checkpoints_in(folder: Path) -> list[tuple[int, Path]]:
    """(step, path) of all checkpoints of a run, oldest first, by the step in each manifest."""
    found: list[tuple[int, Path]] = []
    for path in folder.glob("step-*"):
        with suppress(OSError, ValueError, KeyError, TypeError, OverflowError):
            found.append((int(files.read_json(path / MANIFEST)["step"]), path))
    return sorted(found)


def pointed(folder: Path, pointer: str) -> Path | None:
    """The checkpoint that `latest` or `best` names, if it is there."""
    with suppress(OSError, UnicodeDecodeError):
        name = (folder / pointer).read_text(encoding="utf-8").strip()
        if name == Path(name).name and (folder / name / MANIFEST).exists():
            return folder / name
    return None


def point(folder: Path, pointer: str, checkpoint: Path) -> None:
    """Let `latest` or `best` name a checkpoint."""
    files.write_text(folder / pointer, checkpoint.name + "\n")


def find(folder: Path, which: str) -> Path:
    """The best or latest checkpoint of a run that is whole; a damaged one is passed over with a notice.

    Args:
        folder: `<run>/checkpoints`.
        which: `best` or `latest`.

    Raises:
        ModelError: there is none, listing why each was refused.
    """
    newest_first = [path for _, path in reversed(checkpoints_in(folder))]
    best = pointed(folder, "best") if which == "best" else None
    candidates = [best, *(p for p in newest_first if p != best)] if best else newest_first
    unlisted = [p for p in sorted(folder.glob("step-*"), reverse=True) if p not in candidates]
    reasons: list[str] = []
    for path in [*candidates, *unlisted]:
        try:
            verify(path)
        except ModelError as error:
            reasons.append(error.what)
            continue
        if reasons:
            print(f"note: {printable('; '.join(reasons))}; using {path} instead", file=sys.stderr)
        return path
    if reasons:
        raise ModelError(f"no checkpoint in {folder} is whole: {'; '.join(reasons)}", "train again")
    raise ModelError(f"there is no checkpoint in {folder}", "train first, or give another run")


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint passes `verify`."""
    try:
        verify(folder)
    except ModelError:
        return False
    return True


def prune(folder: Path, keep: int, verified: Path | None = None) -> None:
    """Remove all but the newest `keep` checkpoints and the best; to be called after a new one is verified.

    The two newest that are whole always stay: a damaged one does not count, and is no reason to lose a good one.

    Args:
        folder: `<run>/checkpoints`.
        keep: how many stay, at least 2.
        verified: a checkpoint that is known to be whole, and is not read again.
    """
    newest_first = [path for _, path in reversed(checkpoints_in(folder))]
    protected = {pointed(folder, "best"), pointed(folder, "latest")}
    doomed = [path for path in newest_first[max(2, keep) :] if path not in protected]
    whole: list[Path] = []
    for path in newest_first if doomed else ():
        if len(whole) < 2 and (path == verified or is_whole(path)):
            whole.append(path)
    for path in reversed(doomed):
        if path not in whole:
            hidden = path.with_name(f".{path.name}.{os.getpid()}.old")  # a half-removed one must not look whole
            with suppress(OSError):
                os.rename(path, hidden)
                shutil.rmtree(hidden, ignore_errors=True)
