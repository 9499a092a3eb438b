"""Rows in columns; the columns that matter least go first where the screen is narrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.style import Style
from rich.text import Text

from microgpt.hub.frame import shortened
from microgpt.hub.lines import Lines
from microgpt.hub.pane import hub_of

T = TypeVar("T")


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: its head.
        width: columns that it takes; the first column gets what is left.
        right: numbers stand at the right.
        needed: the table's width from which it is shown.
    """

    name: str
    width: int
    right: bool = False
    needed: int = 0


class Table(Lines, Generic[T]):
    """A table with its head in the row above; what a cell holds says `cells`.

    Args:
        columns: the first one takes the room that is left.
    """

    def __init__(self, columns: Sequence[Column], id: str) -> None:
        super().__init__(id=id)
        self.columns = columns
        self.items: list[T] = []

    def fill(self, items: Sequence[T]) -> None:
        """Show other rows; the cursor stays on its row where that is still there."""
        here = self.here
        self.items = list(items)
        self.set_count(len(self.items))
        if here is not None:
            same = next((i for i, item in enumerate(self.items) if self.same(item, here)), None)
            if same is not None:
                self.cursor = same

    def same(self, one: T, other: T) -> bool:
        """Whether two rows are of the same thing."""
        return one == other

    @property
    def here(self) -> T | None:
        """The row under the cursor."""
        return self.items[self.cursor] if self.cursor < len(self.items) else None

    def cells(self, item: T) -> Sequence[tuple[str, Style]]:
        """Text and style of each column's cell."""
        raise NotImplementedError

    def widths(self, width: int) -> list[int]:
        """How wide each column is; 0 leaves it out."""
        found = [c.width if width >= c.needed else 0 for c in self.columns]
        found[0] = max(8, width - 1 - sum(w + 1 for w in found[1:] if w))
        return found

    def head(self, width: int, sorted_by: str = "", down: bool = False) -> Text:
        """The line of names."""
        ink, text = hub_of(self).ink, Text(no_wrap=True, end="")
        for column, size in zip(self.columns, self.widths(width)):
            if size:
                name = column.name + (("▾" if down else "▴") if column.name == sorted_by else "")
                text.append(_fitted(name, size, column.right), ink.accent if column.name == sorted_by else ink.dim)
                text.append(" ")
        text.truncate(width, pad=True)
        return text

    def row(self, index: int, width: int) -> Text:
        text = Text(no_wrap=True, end="")
        for column, size, (cell, style) in zip(self.columns, self.widths(width), self.cells(self.items[index])):
            if size:
                text.append(_fitted(cell, size, column.right) + " ", style)
        return text


def _fitted(text: str, width: int, right: bool) -> str:
    from rich.cells import cell_len

    short = shortened(text, width)
    room = " " * (width - cell_len(short))
    return room + short if right else short + room
