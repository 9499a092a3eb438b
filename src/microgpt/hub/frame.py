"""The first and the last line of the screen: tabs with the state of the watched run, and the keys of the tab."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.widget import Widget

from microgpt.hub.keys import TABS, hints
from microgpt.hub.pane import hub_of

Spans = list[tuple[int, int, str]]


def shortened(text: str, width: int) -> str:
    """A text cut to a width, its end replaced by one character."""
    from rich.cells import cell_len, set_cell_size

    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(0, width - 1)) + "…" if width > 0 else ""


class TabBar(Widget):
    """The tabs, and at the right what the watched run does."""

    DEFAULT_CSS = "TabBar { height: 1; background: $panel; }"

    def __init__(self) -> None:
        super().__init__(id="tabs")
        self._spans: Spans = []

    def render(self) -> Text:
        hub = hub_of(self)
        ink, width = hub.ink, self.size.width
        names = [name.capitalize() for name in TABS]
        if width < 56:
            names = [n if len(n) < 6 and TABS[i] == hub.tab else n[:3] for i, n in enumerate(names)]
        text = Text(no_wrap=True, end="")
        self._spans = []
        for i, name in enumerate(names):
            start = text.cell_len
            here = TABS[i] == hub.tab
            text.append(f" {name} ", ink.head + (ink.cursor if here else ink.text) if here else ink.dim)
            self._spans.append((start, text.cell_len, TABS[i]))
        state, style = hub.state_line(max(0, width - text.cell_len - 2))
        text.append(" " * max(1, width - text.cell_len - len(state) - 1))
        text.append(state, style)
        return text

    def on_click(self, event: events.Click) -> None:
        for start, end, name in self._spans:
            if start <= event.x < end:
                hub_of(self).action_show_tab(name)


class Hints(Widget):
    """The keys that matter most in this tab; a click does what the key does."""

    DEFAULT_CSS = "Hints { height: 1; background: $panel; }"

    def __init__(self) -> None:
        super().__init__(id="hints")
        self._spans: Spans = []

    def render(self) -> Text:
        hub = hub_of(self)
        ink, width = hub.ink, self.size.width
        text = Text(no_wrap=True, end="")
        self._spans = []
        shown = hints(hub.tab)
        last = [h for h in shown if h[1] in ("help", "quit")]
        room = width - sum(len(label) + len(word) + 3 for label, word, _ in last)
        for label, word, action in [*(h for h in shown if h not in last), *last]:
            size = len(label) + len(word) + 3
            if (label, word, action) not in last and text.cell_len + size > room:
                continue
            start = text.cell_len
            text.append(" ")
            text.append(label, ink.head)
            text.append(f" {word} ", ink.dim)
            self._spans.append((start, text.cell_len, action))
        return text

    async def on_click(self, event: events.Click) -> None:
        for start, end, action in self._spans:
            if start <= event.x < end:
                await hub_of(self).do(action)
