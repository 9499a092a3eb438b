"""From files to documents, with every bad row noted by line and reason.

Text and JSONL are read here line by line, since a user must be told the file, line and byte of what is wrong,
which `datasets` does not know; Parquet and hub data sets are rows of tables (`tables.py`).

Lines end at LF; a CR before it goes. A byte order mark at a file's start goes. NUL and lone CR are text.
"""

from __future__ import annotations

import codecs
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from microgpt.config.schema import DataConfig
from microgpt.data.schemas import SCHEMAS, Dropped, RowFault, Turn, recognised
from microgpt.data.sources import Source
from microgpt.data.tables import table_rows
from microgpt.data.text import is_unicode, parse_json
from microgpt.errors import DataError

IDS_KEPT = 1_000_000  # of a file, to see whether one stands twice; those after them are not compared
PIECE = 1 << 20  # bytes of a long document that are handled at a time
SHOWN = 5
#: a pair of surrogate escapes, half a pair (group 1), or any other escape
SURROGATES = re.compile(
    r"\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}|(\\u[dD][89a-fA-F][\da-fA-F]{2})|\\."
)


@dataclass(slots=True)  # not frozen: a frozen one takes four times as long to make, and millions are made
class Document:
    """One training document, or a piece of one.

    Attributes:
        text: its content.
        kind: what it is, for the report (`text`, `jsonl`, ...).
        content: what identifies its content for the split; the text itself, or a file's sha256.
        continues: it goes on where the document before it ended (pieces of one large file).
        turns: (role, text) of a conversation; `text` is then how it reads. Nothing for plain text.
    """

    text: str
    kind: str
    content: str
    continues: bool = False
    turns: tuple[Turn, ...] = ()


@dataclass
class BadRows:
    """Rows that cannot be used: all are counted, the first are kept to be shown.

    Attributes:
        counts: how many, by reason.
        shown: the first ones as `file:line: reason`.
        dropped: conversations without a reply that were left out; they are no fault.
        trimmed: turns after the last reply that were cut off; no fault either.
    """

    counts: dict[str, int] = field(default_factory=dict)
    shown: list[str] = field(default_factory=list)
    dropped: int = 0
    trimmed: int = 0

    @property
    def total(self) -> int:
        """How many rows are bad."""
        return sum(self.counts.values())

    def add(self, source: str, line: int, reason: str, detail: str = "") -> None:
        """Note one bad row."""
        self.counts[reason] = self.counts.get(reason, 0) + 1
        if len(self.shown) < SHOWN:
            self.shown.append(f"{source}:{line}: {reason}{detail}")

    def refuse(self) -> None:
        """Raise DataError where there is any."""
        if self.total:
            rows = "1 bad row" if self.total == 1 else f"{self.total:,} bad rows"
            more = f"; and {self.total - len(self.shown):,} more" if self.total > len(self.shown) else ""
            raise DataError(
                f"{rows}: {'; '.join(self.shown)}{more}",
                "mend the file, or leave them out with data.on_bad_rows=skip",
            )


def _lines(file: BinaryIO, name: str, limit: int, bad: BadRows, number: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """(line number from 1, offset, bytes without the line's end); longer lines than `limit` are bad rows."""
    offset = file.tell()
    while raw := file.readline(limit + 2):
        number += 1
        start = offset
        offset += len(raw)
        if len(raw) == limit + 2 and not raw.endswith(b"\n"):
            bad.add(name, number, f"line over {limit:,} bytes", " (data.max_line_mb raises the limit)")
            while raw and not raw.endswith(b"\n"):
                raw = file.readline(PIECE)
                offset += len(raw)
            continue
        if number == 1 and raw.startswith(codecs.BOM_UTF8):
            raw, start = raw[3:], 3
        yield number, start, raw.removesuffix(b"\n").removesuffix(b"\r")


def _check_encoding(file: BinaryIO, name: str) -> None:
    start = file.read(4)
    file.seek(0)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise DataError(f"{name}:1: byte 0: UTF-16, not UTF-8", "convert it, for example `iconv -f UTF-16 -t UTF-8`")


def _decoded(raw: bytes, name: str, line: int, offset: int, bad: BadRows) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        bad.add(name, line, "invalid UTF-8", f" at byte {offset + error.start}")
        return None


def _text_lines(file: BinaryIO, source: Source, data: DataConfig, bad: BadRows) -> Iterator[Document]:
    """A document a line. Blocks without a fault are split at once, four times as fast as line by line."""
    limit = int(data.max_line_mb * 2**20)
    number = 0
    while limit >= PIECE:
        start = file.tell()
        block = file.read(PIECE)
        if not block:
            return
        if not block.endswith(b"\n"):
            block += file.readline(limit + 2)
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError:
            text = ""
        if not text or len(block) - block.rfind(b"\n", 0, -1) > limit:
            file.seek(start)  # from here on line by line, which finds the line and byte
            break
        lines = text.removesuffix("\n").split("\n")
        if not number:
            lines[0] = lines[0].removeprefix("\ufeff")
        number += len(lines)
        for line in lines:
            line = line.removesuffix("\r")
            if line.strip():
                yield Document(line, "text", line)
    for at, offset, raw in _lines(file, source.path, limit, bad, number):
        line = _decoded(raw, source.path, at, offset, bad)
        if line is not None and line.strip():
            yield Document(line, "text", line)


def _text_file(file: BinaryIO, source: Source, bad: BadRows) -> Iterator[Document]:
    """A whole file as one document, in pieces cut after a line where one ends."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    first, offset, rest = True, 0, ""
    while True:
        block = file.read(PIECE)
        if offset == 0:
            block = block.removeprefix(codecs.BOM_UTF8)
        try:
            text = rest + decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            start = max(0, file.tell() - len(error.object) + error.start)
            file.seek(0)
            line = file.read(start).count(b"\n") + 1
            bad.add(source.path, line, "invalid UTF-8", f" at byte {start}")
            return
        offset += len(block)
        if not block:
            if text:
                yield Document(text, "text", source.sha256, continues=not first)
            return
        cut = text.rfind("\n") + 1 or len(text)
        rest = text[cut:]
        yield Document(text[:cut], "text", source.sha256, continues=not first)
        first = False


def _text_separated(file: BinaryIO, source: Source, data: DataConfig, bad: BadRows) -> Iterator[Document]:
    """Documents between separators, which belong to none of them; one line end on each side goes too."""
    mark, limit = data.separator.encode(), int(data.max_line_mb * 2**20)
    if not mark:
        raise DataError("data.separator is empty", "give the text that stands between documents")
    buffer, offset, line, skipping = b"", 0, 1, False
    while True:
        block = file.read(PIECE)
        if offset == 0 and not buffer and block.startswith(codecs.BOM_UTF8):
            block, offset = block[3:], 3
        buffer += block
        pieces = buffer.split(mark)
        buffer = pieces.pop() if block else b""
        for piece in pieces:
            if not skipping and len(piece) > limit:
                bad.add(source.path, line, f"document over {limit:,} bytes", " (data.max_line_mb raises the limit)")
            elif not skipping:
                text = _decoded(piece, source.path, line, offset, bad)
                if text is not None and text.strip():
                    text = text.removeprefix("\r\n" if text.startswith("\r\n") else "\n")
                    text = text.removesuffix("\r\n" if text.endswith("\r\n") else "\n")
                    yield Document(text, "text", text)
            skipping = False
            offset += len(piece) + len(mark)
            line += piece.count(b"\n") + mark.count(b"\n")
        if len(buffer) > limit:
            if not skipping:
                bad.add(
                    source.path,
                    line,
                    f"document over {limit:,} bytes",
                    " (data.max_line_mb raises the limit)",
                )
            skipping = True
            dropped = len(buffer) - len(mark)
            line += buffer[:dropped].count(b"\n")
            offset, buffer = offset + dropped, buffer[dropped:]
        if not block:
            return


def row_problem(row: Any, field_name: str) -> str:
    """What is wrong with a row that should hold a text field, or nothing."""
    if not isinstance(row, dict):
        return "not a JSON object"
    value = typing.cast("dict[str, Any]", row).get(field_name)
    if value is None:
        return f"no field {field_name!r}" if field_name not in row else f"{field_name!r} is null"
    if not isinstance(value, str):
        return f"{field_name!r} is not a text"
    if not value.strip():
        return f"{field_name!r} is blank"
    return "" if is_unicode(value) else "lone surrogate"


def _parsed(
    rows: Iterator[tuple[int, Any, str]], source: Source, data: DataConfig, bad: BadRows
) -> Iterator[Document]:
    """Documents from (line, value, problem) rows of one schema: the configured one, or the first one seen."""
    schema = "" if data.schema == "auto" else data.schema
    seen_ids: set[str] = set()
    for number, row, problem in rows:
        if problem:
            bad.add(source.path, number, problem)
            continue
        looks = recognised(row, data.text_field)
        schema = schema or looks  # a row that looks like nothing does not decide for the file
        stray = schema == "text" and isinstance(row, list)  # is said below to be no object
        if looks not in (schema, "") and data.schema == "auto" and not stray:
            bad.add(source.path, number, f"a {looks} row in a file of {schema} rows")
            continue
        if schema in ("text", ""):
            problem = row_problem(row, data.text_field)
            fields: dict[str, Any] = {} if not isinstance(row, dict) else row
            if problem:
                hint = _field_hint(fields, data.text_field) if problem.startswith("no field") else ""
                bad.add(source.path, number, problem, hint)
            else:
                yield Document(fields[data.text_field], source.format, fields[data.text_field])
            continue
        try:
            if not isinstance(row, (dict, list)) or (isinstance(row, list) and schema != "messages"):
                raise RowFault("not a JSON object")
            parsed = SCHEMAS[schema](row, number)
            if parsed.identity and parsed.identity in seen_ids:
                raise RowFault("its id stands twice")
        except RowFault as fault:
            bad.add(source.path, number, str(fault))
            continue
        except Dropped:
            bad.dropped += 1
            continue
        if parsed.identity and len(seen_ids) < IDS_KEPT:
            seen_ids.add(parsed.identity)
        bad.trimmed += parsed.trimmed
        turns = parsed.turns if data.chat else ()
        yield Document(parsed.text, parsed.kind, parsed.text, turns=turns)


def _jsonl(file: BinaryIO, source: Source, data: DataConfig, bad: BadRows) -> Iterator[Document]:
    def rows() -> Iterator[tuple[int, Any, str]]:
        for number, offset, raw in _lines(file, source.path, int(data.max_line_mb * 2**20), bad):
            text = _decoded(raw, source.path, number, offset, bad)
            if text is None:
                continue
            lone = next((m for m in SURROGATES.finditer(text) if m[1]), None) if "\\u" in text else None
            if lone:
                at = offset + len(text[: lone.start()].encode("utf-8"))
                bad.add(source.path, number, "lone surrogate", f" at byte {at}")
            else:
                yield number, *parse_json(text)

    return _parsed(rows(), source, data, bad)


def _field_hint(row: dict[str, Any], wanted: str) -> str:
    names = [str(k)[:40] for k, v in row.items() if isinstance(v, str)][:6]
    return f" (it has {', '.join(names)}; choose with data.text_field=)" if names and wanted not in names else ""


def read_documents(
    sources: list[Source], data: DataConfig, bad: BadRows, progress: Callable[[int], None] | None = None
) -> Iterator[Document]:
    """All documents of all sources in order; bad rows are noted in `bad` and left out.

    Args:
        sources: from `find_sources`.
        data: how to read them.
        bad: collects bad rows.
        progress: told the bytes read since it was told last.

    Raises:
        DataError: a file as a whole cannot be read.
    """
    for source in sources:
        if source.format in ("parquet", "hub"):
            yield from _parsed(table_rows(source, data, progress), source, data, bad)
            continue
        told = 0
        try:
            with open(source.path, "rb") as file:
                _check_encoding(file, source.path)
                if source.format == "jsonl":
                    documents = _jsonl(file, source, data, bad)
                elif data.document == "file":
                    documents = _text_file(file, source, bad)
                elif data.document == "separator":
                    documents = _text_separated(file, source, data, bad)
                else:
                    documents = _text_lines(file, source, data, bad)
                for count, document in enumerate(documents):
                    if progress and count % 512 == 0:
                        progress(file.tell() - told)
                        told = file.tell()
                    yield document
                if progress:
                    progress(file.tell() - told)
        except OSError as error:
            raise DataError(f"{source.path} cannot be read: {error.strerror}", "check the file") from None
