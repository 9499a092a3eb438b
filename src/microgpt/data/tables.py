"""Rows of Parquet files and of hub data sets, a few at a time: never a whole file, nor a whole row group."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from microgpt.config.schema import DataConfig
from microgpt.data.schemas import recognised
from microgpt.data.sources import Source
from microgpt.errors import DataError

BATCH_BYTES = 4 << 20  # of rows that are decoded at a time, as far as a row group's own figures tell
BATCH_ROWS = 1024
PAGE_BUFFER = 1 << 20
Row = tuple[int, Any, str]


def table_rows(source: Source, data: DataConfig, progress: Callable[[int], None] | None) -> Iterator[Row]:
    """(row from 1, its value, what is wrong with it) of a source of the formats `parquet` and `hub`.

    Raises:
        DataError: the file or data set as a whole cannot be read.
    """
    try:
        rows = _hub(source, data, progress) if source.format == "hub" else _parquet(source, data, progress)
        for number, (row, problem) in enumerate(rows, 1):
            yield number, row, problem or _too_long(row, data)
    except DataError:
        raise
    except Exception as error:  # pyarrow and datasets raise many kinds: arrow, hub, network, value
        reason = " ".join(str(error).split())[:160]
        mend = "check the name and the network" if source.format == "hub" else "check that it is a Parquet file"
        raise DataError(f"{source.path} cannot be read: {type(error).__name__} {reason}", mend) from None


def _too_long(row: Any, data: DataConfig) -> str:
    """The reason for which a row's text is over the limit, or nothing."""
    limit = int(data.max_line_mb * 2**20)
    text = row.get(data.text_field)
    if isinstance(text, str) and len(text) * 4 > limit and len(text.encode("utf-8", "surrogatepass")) > limit:
        return f"text over {limit:,} bytes"
    return ""


def _hub(source: Source, data: DataConfig, progress: Callable[[int], None] | None) -> Iterator[tuple[Any, str]]:
    """Rows as `datasets` streams them. Progress is counted in text, since nobody knows the size of the files."""
    import datasets

    datasets.disable_progress_bars()
    rows: Any = datasets.load_dataset(source.path, split=data.split, streaming=True)
    told = 0
    for count, row in enumerate(rows, 1):
        yield row, ""
        text = row.get(data.text_field)
        told += len(text) if isinstance(text, str) else 0
        if progress and count % 512 == 0:
            progress(told)
            told = 0
    if progress:
        progress(told)


def _parquet(source: Source, data: DataConfig, progress: Callable[[int], None] | None) -> Iterator[tuple[Any, str]]:
    """Rows of a file. Pages are read through a small buffer and decoded a few rows at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(source.path, buffer_size=PAGE_BUFFER, pre_buffer=False) as file:
        names = list(file.schema_arrow.names)
        looks = recognised(dict.fromkeys(names), data.text_field) if data.schema == "auto" else data.schema
        # of text rows the other columns say nothing; where the field is missing, the rows tell which fields there are
        columns = [data.text_field] if looks == "text" and data.text_field in names else None
        told = done = 0
        total = max(1, file.metadata.num_rows)
        for group in range(file.num_row_groups):
            facts = file.metadata.row_group(group)
            row_bytes = max(1, facts.total_byte_size // max(1, facts.num_rows))
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES // row_bytes))
            for batch in file.iter_batches(rows, row_groups=[group], columns=columns, use_threads=False):
                yield from _values(batch)
                done += batch.num_rows
                if progress:
                    now = source.bytes * done // total
                    progress(now - told)
                    told = now


def _values(batch: Any) -> list[tuple[Any, str]]:
    """The rows of a record batch; one that cannot be decoded spoils no other."""
    try:
        return [(row, "") for row in batch.to_pylist()]
    except UnicodeDecodeError:
        if batch.num_rows == 1:
            return [({}, "invalid UTF-8")]
        return [row for n in range(batch.num_rows) for row in _values(batch.slice(n, 1))]
