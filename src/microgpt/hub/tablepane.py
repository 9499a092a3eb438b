"""What the tabs of a table have in common: its head above, a line below, the folders read again now and then."""

from __future__ import annotations

from typing import Any, ClassVar

from textual.app import ComposeResult
from textual.widgets import Static

from microgpt.hub.pane import Pane
from microgpt.hub.table import Table


class TablePane(Pane):
    """A tab with a table.

    Attributes:
        filter: which rows are shown.
    """

    DEFAULT_CSS = """
    TablePane #head { height: 1; background: $surface; }
    TablePane Table { height: 1fr; }
    TablePane #foot { height: 1; background: $surface; padding: 0 1; }
    """
    #: ticks between two readings of the folders
    EVERY: ClassVar[int] = 6

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.filter = ""
        self._ticks = 0

    def made(self) -> Table[Any]:
        """A new table, for `compose`."""
        raise NotImplementedError

    def read(self) -> None:
        """Read the folders, and draw."""
        raise NotImplementedError

    def tell(self) -> None:
        """Filter and draw."""
        raise NotImplementedError

    def compose(self) -> ComposeResult:
        yield Static(id="head", classes="line")
        yield self.made()
        yield Static(id="foot", classes="line")

    def entered(self) -> None:
        self.query_one(Table).focus()
        self.read()

    def restyle(self) -> None:
        super().restyle()
        self.tell()

    def on_resize(self) -> None:
        """The head follows the width."""
        self.call_after_refresh(self.tell)

    def tick(self) -> None:
        self._ticks += 1
        if self._ticks % self.EVERY == 0:
            self.read()

    def on_lines_moved(self) -> None:
        """The line below is of another row."""
        self.tell()
