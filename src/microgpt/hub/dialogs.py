"""Questions over the tabs: a text, a choice, yes or no, and a page to read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, TypeVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from microgpt.hub.lines import Lines
from microgpt.hub.pane import hub_of

T = TypeVar("T")

CSS = """
{name} {{ align: center middle; background: $background 60%; }}
{name} > #box {{
    width: {width}; max-width: 96%; height: {height}; max-height: 90%; background: $surface;
    border: round $primary; border-title-color: $primary; padding: 0 1;
}}
"""


class Dialog(ModalScreen[T]):
    """A box in the middle; escape leaves it without an answer."""

    BINDINGS: ClassVar[list[BindingType]] = [("escape", "leave", "leave")]

    def __init__(self, title: str) -> None:
        super().__init__()
        self.head = title

    def on_mount(self) -> None:
        box = self.query_one("#box")
        box.border_title = self.head

    def action_leave(self) -> None:
        """Close without an answer."""
        self.dismiss(None)


class Ask(Dialog[str | None]):
    """A line of text.

    Args:
        title: what is asked.
        value: stands there already.
        check: what is wrong with a text, or nothing; it is shown as it is typed.
        note: a word of help below.
    """

    CSS = CSS.format(name="Ask", width="76", height="auto") + (
        "Ask Input { border: none; height: 1; padding: 0; background: $panel; }"
    )

    def __init__(
        self, title: str, value: str = "", check: Callable[[str], str] | None = None, note: str = ""
    ) -> None:
        super().__init__(title)
        self._value, self._check, self._note = value, check, note

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Input(self._value, id="answer", select_on_focus=False, compact=True)
            yield Static(id="note", markup=False)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(Input).focus()
        self._tell(self._value)

    def _tell(self, value: str) -> str:
        wrong = self._check(value) if self._check else ""
        ink = hub_of(self).ink
        self.query_one("#note", Static).update(Text(wrong, ink.bad) if wrong else Text(self._note, ink.dim))
        return wrong

    def on_input_changed(self, event: Input.Changed) -> None:
        """Say at once what is wrong."""
        self._tell(event.value)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Answer, unless it is wrong."""
        if not self._tell(event.value):
            self.dismiss(event.value)


class Options(Lines):
    """The rows of a choice: name and what it is."""

    def __init__(self, rows: Sequence[tuple[str, str]]) -> None:
        super().__init__(id="options")
        self._all = list(rows)
        self.shown = list(range(len(rows)))
        self.count = len(rows)

    def narrow(self, text: str) -> None:
        """Keep rows that have a text in their name."""
        wanted = text.lower()
        self.shown = [i for i, (name, _) in enumerate(self._all) if wanted in name.lower()]
        self.cursor = 0
        self.set_count(len(self.shown))

    def row(self, index: int, width: int) -> Text:
        name, what = self._all[self.shown[index]]
        ink = hub_of(self).ink
        first = min(30, max(len(n) for n, _ in self._all) + 2)
        return Text.assemble((name.ljust(first), ink.text), (what, ink.dim))


class Choose(Dialog[int | None]):
    """One of several; typing narrows them.

    Args:
        title: what is chosen.
        rows: name and what it is.
        at: the row that has the cursor at first.
    """

    CSS = CSS.format(name="Choose", width="80", height="auto") + (
        "Choose Input { border: none; height: 1; padding: 0; background: $panel; }"
        "Choose #options { height: auto; max-height: 14; background: $surface; }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [("down", "move(1)", "next"), ("up", "move(-1)", "previous")]

    def __init__(self, title: str, rows: Sequence[tuple[str, str]], at: int = 0) -> None:
        super().__init__(title)
        self._rows, self._at = rows, at

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Input(placeholder="type to narrow", id="narrow", compact=True)
            yield Options(self._rows)

    def on_mount(self) -> None:
        super().on_mount()
        options = self.query_one(Options)
        options.set_count(len(self._rows))
        options.styles.height = min(14, max(1, len(self._rows)))
        options.cursor = self._at
        self.query_one(Input).focus()

    def action_move(self, by: int) -> None:
        """Move the cursor while the input has the focus."""
        self.query_one(Options).action_move(by)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Narrow."""
        if event.value or len(self.query_one(Options).shown) != len(self._rows):
            self.query_one(Options).narrow(event.value)

    def on_input_submitted(self) -> None:
        """Choose the row under the cursor."""
        options = self.query_one(Options)
        self.dismiss(options.shown[options.cursor] if options.count else None)

    def on_lines_chosen(self) -> None:
        """A click on the cursor's row."""
        self.on_input_submitted()


class Sure(Dialog[bool]):
    """Yes or no."""

    CSS = CSS.format(name="Sure", width="60", height="auto")
    BINDINGS: ClassVar[list[BindingType]] = [("y,enter", "yes", "yes"), ("n,escape,q", "no", "no")]

    def __init__(self, title: str, question: str) -> None:
        super().__init__(title)
        self._question = question

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            yield Static(self._question, markup=False)
            yield Static("y yes    n no", markup=False)

    def action_yes(self) -> None:
        """Yes."""
        self.dismiss(True)

    def action_no(self) -> None:
        """No."""
        self.dismiss(False)


class Page(Dialog[None]):
    """Something to read; y copies it."""

    CSS = CSS.format(name="Page", width="96", height="auto") + (
        "Page VerticalScroll { height: auto; max-height: 100%; scrollbar-size: 1 1; }"
        "Page Static { height: auto; width: 1fr; }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        ("q,enter,question_mark", "leave", "leave"),
        ("y", "copy", "copy"),
        ("j", "down"),
        ("k", "up"),
    ]

    def __init__(self, title: str, text: Text) -> None:
        super().__init__(title)
        self._text = text

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            with VerticalScroll():
                yield Static(self._text)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#box").border_subtitle = "esc closes, y copies"
        self.query_one(VerticalScroll).focus()

    def action_copy(self) -> None:
        """Copy the text."""
        hub_of(self).copy(self._text.plain, "the page")

    def action_down(self) -> None:
        """Scroll down."""
        self.query_one(VerticalScroll).scroll_relative(y=1, animate=False)

    def action_up(self) -> None:
        """Scroll up."""
        self.query_one(VerticalScroll).scroll_relative(y=-1, animate=False)
