"""Fetching a data set by URL: a progress bar, a checksum, and no file under its name before it is whole."""

from __future__ import annotations

import hashlib
from pathlib import Path

from microgpt import files
from microgpt.errors import DataError

BLOCK = 1 << 18


def download(url: str, target: Path, sha256: str) -> Path:
    """The file at `target`, downloaded where it is not there yet.

    Raises:
        DataError: no network, or another content than the checksum says; nothing is kept.
    """
    if target.is_file() and files.sha256_file(target) == sha256:
        return target
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import urlopen

    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    content = bytearray()
    bar = Progress(TextColumn("downloading {task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    try:
        with urlopen(url, timeout=20) as answer, bar:
            task = bar.add_task(target.name, total=int(answer.headers.get("Content-Length") or 0) or None)
            while block := answer.read(BLOCK):
                content += block
                bar.update(task, advance=len(block))
    except (URLError, HTTPException, OSError, ValueError) as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())[:160]
        raise DataError(
            f"{target.name} cannot be downloaded ({reason})",
            f"fetch {url} by hand and set MICROGPT_DATA_DIR to its folder, or use the embedded data=tales",
        ) from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{url} gave another content than expected (sha256 differs)", "try again later")
    target.parent.mkdir(parents=True, exist_ok=True)
    files.write_bytes(target, bytes(content))
    return target
