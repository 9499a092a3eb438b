"""Where data comes from: named corpora, files, folders and globs, each file refused or fingerprinted."""

from __future__ import annotations

import errno
import glob
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from microgpt import files
from microgpt.config.schema import DataConfig
from microgpt.data.download import download
from microgpt.errors import DataError

TEXT_ENDINGS = (".txt", ".text", ".md")
ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Corpus:
    """A named data set: a file of corpora/, or one that is downloaded by checksum."""

    file: str
    url: str = ""
    sha256: str = ""
    licence: str = "MIT, written by this project"


CORPORA = {
    "tales": Corpus("tales.txt"),
    "names": Corpus("names.txt"),
    "conversations": Corpus("conversations.jsonl"),
    "names32k": Corpus(
        "names.txt",
        "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt",
        "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
        "MIT (github.com/karpathy/makemore)",
    ),
    "shakespeare": Corpus(
        "tinyshakespeare.txt",
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        "public domain (github.com/karpathy/char-rnn)",
    ),
    "dolly": Corpus(
        "databricks-dolly-15k.jsonl",
        "https://huggingface.co/datasets/databricks/databricks-dolly-15k/resolve/main/databricks-dolly-15k.jsonl",
        "2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
        "CC BY-SA 3.0 (Databricks)",
    ),
    "oasst1": Corpus(
        "oasst1_chat.jsonl",
        "",
        "f07075434113e4fd800eb7be28fe9eebd37cb670000155eaff266d3926b7a019",
        "Apache-2.0 (OpenAssistant OASST1)",
    ),
}


@dataclass(frozen=True)
class Source:
    """One file, or one hub data set, with what identifies its content.

    Attributes:
        path: the file, or the hub name.
        format: `text`, `jsonl`, `parquet` or `hub`.
        sha256: of the file's content; of the name for hub data sets.
        bytes: size of the file, 0 for hub data sets.
    """

    path: str
    format: str
    sha256: str
    bytes: int


def corpus_file(name: str) -> Path:
    """The file of a named corpus: shipped, from MICROGPT_DATA_DIR, from the cache, or downloaded.

    Raises:
        DataError: it cannot be had, or its checksum is wrong.
    """
    corpus = CORPORA[name]
    if not corpus.sha256:
        return files.shipped("corpora") / corpus.file
    given = os.environ.get("MICROGPT_DATA_DIR")
    if given and (Path(given) / corpus.file).is_file():
        path = Path(given) / corpus.file
        if files.sha256_file(path) != corpus.sha256:
            raise DataError(f"{path} is not the {name} data set: its sha256 differs", "fetch it again")
        return path
    if not corpus.url:
        raise DataError(
            f"data={name} has no address to download from",
            f"put {corpus.file} into a folder and set MICROGPT_DATA_DIR to it",
        )
    return download(corpus.url, files.cache_folder() / "data" / name / corpus.file, corpus.sha256)


def _regular_files(pattern: str) -> list[Path]:
    """The files that a path, folder or glob means; anything that could hang a reader is refused."""
    path = Path(pattern).expanduser()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        # pathlib's `**` follows no links, where glob's walks loops of them until it has named 2^40 paths
        root = Path(path.anchor)
        matches = root.glob(str(path.relative_to(root))) if glob.has_magic(str(path)) else ()
        found = sorted(str(p) for p in matches if p != path and not p.name.startswith("."))
        if found:
            return [p for f in found for p in _regular_files(f)]
        if error.errno == errno.ELOOP:
            raise DataError(f"{pattern} is a loop of symbolic links", "give a file or a folder") from None
        if error.errno not in (errno.ENOENT, errno.ENOTDIR):
            raise DataError(f"{pattern} cannot be read: {error.strerror}", "check the path") from None
        hub = " (for a data set of the Hugging Face hub add data=hub)" if pattern.count("/") == 1 else ""
        raise DataError(f"{pattern} does not exist", f"give a file, a folder or a glob in data.path{hub}") from None
    if stat.S_ISREG(mode):
        return [path]
    if stat.S_ISDIR(mode):
        known = (*TEXT_ENDINGS, *ENDINGS)
        inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in known and p.is_file())
        if not inside:
            raise DataError(f"the folder {pattern} holds no file ending in {', '.join(known)}", "give another")
        return inside
    raise DataError(f"{pattern} is neither a file nor a folder", "give a regular file")


def find_sources(data: DataConfig) -> list[Source]:
    """All files that a data config names, with their fingerprints.

    Raises:
        DataError: a path does not exist, is empty, or is no regular file.
    """
    if data.format == "hub":
        if not data.path:
            raise DataError("data=hub needs a name", "add data.path=owner/name")
        import hashlib

        return [Source(n, "hub", hashlib.sha256(f"{n}:{data.split}".encode()).hexdigest(), 0) for n in data.path]
    paths = [p for given in data.path for p in _regular_files(given)] if data.path else [corpus_file(data.corpus)]
    sources: list[Source] = []
    for path in paths:
        try:
            size = path.stat().st_size
            if size == 0:
                raise DataError(f"{path} is empty", "give a file with text in it")
            kind = ENDINGS.get(path.suffix.lower(), "text") if data.format == "auto" else data.format
            sources.append(Source(str(path), kind, _content_hash(path), size))
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}", "check its permissions") from None
    formats = {s.format for s in sources}
    if len(formats) > 1:
        raise DataError(f"data.path mixes {' and '.join(sorted(formats))}", "give files of one format")
    return sources


def _content_hash(path: Path) -> str:
    """sha256 of a file; for large files remembered by path, size and both times, which no edit keeps."""
    info = path.stat()
    if info.st_size < 50_000_000:
        return files.sha256_file(path)
    import hashlib

    identity = f"{path.resolve()}|{info.st_size}|{info.st_mtime_ns}|{info.st_ctime_ns}|{info.st_ino}"
    note = files.cache_folder() / "hashes" / hashlib.sha256(identity.encode()).hexdigest()
    if note.is_file() and len(known := note.read_text()) == 64:
        return known
    digest = files.sha256_file(path)
    note.parent.mkdir(parents=True, exist_ok=True)
    files.write_text(note, digest)
    return digest
