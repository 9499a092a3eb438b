"""The bar of the passes over large texts."""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from microgpt.data.sources import Source

SHOWN_FROM = 3_000_000


class Passes:
    """Draws a bar on standard error for each pass: bytes, MB/s, time left. Small texts take no time and get none.

    Args:
        sources: what is read; of hub data sets nobody knows the size.
        wanted: whether bars are drawn at all.
    """

    def __init__(self, sources: list[Source], wanted: bool) -> None:
        self.bytes = sum(s.bytes for s in sources)
        self._total = None if any(s.format == "hub" for s in sources) else self.bytes
        self._shown = wanted and (self._total is None or self._total > SHOWN_FROM) and sys.stderr.isatty()

    @contextmanager
    def named(self, name: str) -> Generator[Any]:
        """A bar; yields what is to be told the bytes read since it was told last, or None."""
        if not self._shown:
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as Speed

        columns = (TextColumn(name), BarColumn(), DownloadColumn(), Speed(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task("", total=self._total)

            def told(count: int) -> None:
                bar.update(task, advance=count)

            yield told
