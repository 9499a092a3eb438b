"""A list of rows of which only the visible ones are drawn: the form, tables, logs and choices are made of it."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip

from microgpt.hub.keys import LISTS, bindings


class Lines(ScrollView, can_focus=True):
    """Rows with a cursor; a subclass says how a row looks.

    Attributes:
        cursor: the row that keys act on.
    """

    BINDINGS = bindings(LISTS)
    DEFAULT_CSS = "Lines { scrollbar-size: 1 1; overflow-x: hidden; overflow-y: auto; background: $background; }"

    cursor: reactive[int] = reactive(0)

    class Moved(Message):
        """The cursor is on another row."""

        def __init__(self, lines: Lines) -> None:
            self.lines = lines
            super().__init__()

        @property
        def control(self) -> Lines:
            return self.lines

    class Chosen(Message):
        """A row was clicked that had the cursor already."""

        def __init__(self, lines: Lines) -> None:
            self.lines = lines
            super().__init__()

        @property
        def control(self) -> Lines:
            return self.lines

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.count = 0

    def row(self, index: int, width: int) -> Text:
        """How a row looks, at most so many columns wide."""
        raise NotImplementedError

    def selectable(self, index: int) -> bool:
        """Whether the cursor may stand on a row."""
        return True

    def set_count(self, count: int) -> None:
        """Say how many rows there are, and draw them again."""
        self.count = count
        self.virtual_size = Size(0, count)
        if count and self.cursor >= count:
            self.cursor = count - 1
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width = self.size.width
        index = y + self.scroll_offset.y
        if index >= self.count or width <= 0:
            return Strip.blank(width, self.rich_style)
        text = self.row(index, width)
        text.truncate(width, overflow="ellipsis", pad=True)
        text.no_wrap, text.end = True, ""
        if index == self.cursor and self.shows_cursor():
            text.stylize_before(self.cursor_style())
        return Strip(text.render(self.app.console)).adjust_cell_length(width).apply_style(self.rich_style)

    def shows_cursor(self) -> bool:
        """Whether the cursor's row is marked."""
        return True

    def cursor_style(self) -> str:
        """The style of the cursor's row."""
        from microgpt.hub.pane import hub_of

        return str(hub_of(self).ink.cursor)

    def watch_cursor(self) -> None:
        if self.is_mounted:
            self.scroll_to_region(Region(0, self.cursor, 1, 1), animate=False, force=True)
            self.refresh()
            self.post_message(self.Moved(self))

    def action_move(self, by: int) -> None:
        """Put the cursor on the next row that may have it."""
        at = self.cursor + by
        while 0 <= at < self.count and not self.selectable(at):
            at += 1 if by > 0 else -1
        if 0 <= at < self.count:
            self.cursor = at
        elif by < 0:
            self.scroll_to(y=0, animate=False)  # heads above the first row come into sight again

    def action_page(self, by: int) -> None:
        """Move by a page."""
        at = max(0, min(self.count - 1, self.cursor + by * max(1, self.size.height - 1)))
        self._land(at, by)

    def action_first(self) -> None:
        """Move to the first row."""
        self.scroll_to(y=0, animate=False)
        self._land(0, 1)

    def action_last(self) -> None:
        """Move to the last row."""
        self._land(self.count - 1, -1)

    def _land(self, at: int, by: int) -> None:
        step = 1 if by > 0 else -1
        tried = at
        while 0 <= tried < self.count and not self.selectable(tried):
            tried += step
        if not 0 <= tried < self.count:
            tried = at
            while 0 <= tried < self.count and not self.selectable(tried):
                tried -= step
        if 0 <= tried < self.count:
            self.cursor = tried

    def on_click(self, event: events.Click) -> None:
        """A click moves the cursor; one on the cursor chooses."""
        index = event.y + self.scroll_offset.y
        if not 0 <= index < self.count or not self.selectable(index):
            return
        if index == self.cursor:
            self.post_message(self.Chosen(self))
        self.cursor = index
