"""Where the documents come from: a text file, one document a line.

Three sources: a file of one's own; the names that travel with this project; the 32,033 names that the
original program was published with, fetched once and checked, since its loss figures hold for
those very bytes only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from http.client import HTTPException
from pathlib import Path

__all__ = ["NAMES_SHA256", "NAMES_URL", "DataError", "download", "embedded_names", "read_documents"]

NAMES_URL = "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
NAMES_SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"

# Plain Python trains on some 100 documents a second; a text beyond this would not be read in a year.
MAX_MEGABYTES = 64


class DataError(Exception):
    """A corpus that cannot be used. The message is one line: what is wrong - how to mend it."""


def embedded_names() -> Path:
    """The names that travel with the project, in an installed package or in a checkout of it."""
    # parents[1] is the microgpt folder, where a wheel puts the corpora; parents[3] the root of a checkout.
    for folder in Path(__file__).parents[1:4:2]:
        path = folder / "corpora" / "names.txt"
        if path.is_file():
            return path
    raise DataError("this installation lacks its own names - name a file with --input, or give --download")


def read_documents(path: Path) -> list[str]:
    """The documents of a text file: its lines without surrounding blanks, empty ones left out.

    The file is UTF-8, with or without a byte order mark. A line ends with LF, CRLF or CR. All other
    characters count, NUL included. DataError where there is no such file, it is none to read from
    (a folder, a pipe, a device), it is over 64 MB, not UTF-8, or has no line with text.
    """
    if not path.exists():
        raise DataError(f"{path} does not exist - check the path")
    if not path.is_file():  # a pipe or a device might never end
        raise DataError(f"{path} is not a file - give a text file, one document a line")
    try:
        if path.stat().st_size > MAX_MEGABYTES * 1_000_000:
            raise DataError(
                f"{path} is larger than {MAX_MEGABYTES} MB - cut it, or use `microgpt train`, made for such"
            )
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror} - check its permissions") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path} is not UTF-8: line {line}, byte {error.start} - save it as UTF-8 text") from error
    # Not str.splitlines: it would also break at form feeds and other characters that are text here.
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    documents = [line.strip() for line in lines]
    documents = [document for document in documents if document]
    if not documents:
        raise DataError(f"{path} holds no text - put one document on each line")
    return documents


def download(folder: Path, url: str = NAMES_URL, sha256: str = NAMES_SHA256) -> Path:
    """The original's names.txt: $MICROGPT_DATA_DIR/names.txt, else folder/names.txt, fetched if missing.

    Returns its path; whichever file it is, its bytes are those with the given sha256. The file appears
    under its name only when it is whole. DataError where the download fails or the bytes differ;
    OSError where the folder cannot be written.
    """
    data_folder = os.environ.get("MICROGPT_DATA_DIR")
    candidates = [Path(data_folder, "names.txt")] if data_folder else []
    target = folder / "names.txt"
    for path in (*candidates, target):
        if path.is_file():
            if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                raise DataError(f"{path} is another file than {url} - move it away, or use it with --input")
            return path
    import urllib.request  # slow to import, and most runs fetch nothing

    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            content: bytes = response.read(MAX_MEGABYTES * 1_000_000)
    except (OSError, HTTPException) as error:  # URLError and time-outs are OSErrors
        raise DataError(
            f"{url} cannot be fetched: {getattr(error, 'reason', error)} - "
            "go online, or save it by hand and name it with --input"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise DataError(f"{url} sent other bytes than expected - try again, or name a file with --input")
    _write_whole(target, content)
    return target


def _write_whole(target: Path, content: bytes) -> None:
    """Writes beside the target, then renames: nobody ever sees half a file, whenever we are interrupted."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
