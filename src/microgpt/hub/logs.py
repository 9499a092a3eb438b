"""The Logs tab: what the watched run writes down and prints."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text
from textual.app import ComposeResult
from textual.widgets import Static

from microgpt.hub.dialogs import Ask
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.loglines import LogView, Tail
from microgpt.hub.pane import Pane
from microgpt.runs.folder import LOG


def sources(folder: Path) -> list[Path]:
    """The logs of a run: train.log, then what its processes printed, the newest first."""
    printed = sorted(folder.glob("console*.log"), key=lambda p: p.stat().st_mtime, reverse=True)
    return [folder / LOG, *printed]


class LogsPane(Pane):
    """One log, a line about it above."""

    BINDINGS = bindings(BY_TAB["logs"])
    PARTS = ("about", "log")
    DEFAULT_CSS = "LogsPane #about { height: 1; background: $surface; padding: 0 1; } LogsPane #log { height: 1fr; }"

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._tail: Tail | None = None
        self._source = 0

    def compose(self) -> ComposeResult:
        yield Static(id="about", classes="line")
        yield LogView()

    @property
    def log_view(self) -> LogView:
        """The lines."""
        return self.query_one(LogView)

    def entered(self) -> None:
        self.log_view.focus()

    def restyle(self) -> None:
        super().restyle()
        self.log_view.refresh()
        self.tick()

    def tick(self) -> None:
        """Read what is new; of a run that failed before it wrote anything, what it printed."""
        run = self.hub.watched
        if not self.whole:
            return
        if run is None:
            self.query_one("#about", Static).update(Text("no run is watched", self.hub.ink.dim))
            return
        found = sources(run.path)
        if run.status == "FAILED" and not self._source and len(found) > 1 and not found[0].exists():
            self._source = 1
        path = found[min(self._source, len(found) - 1)]
        if self._tail is None or self._tail.path != path:
            self._tail = Tail(path)
            self.log_view.clear()
        self.log_view.add(self._tail.read())
        self._tell()

    def _tell(self) -> None:
        run, view, ink = self.hub.watched, self.log_view, self.hub.ink
        if run is None or self._tail is None:
            return
        text = Text(no_wrap=True, end="")
        text.append(self._tail.path.name, ink.head)
        text.append(f"  {view.count:,} lines", ink.dim)
        text.append("  following" if view.follow else "  staying", ink.good if view.follow else ink.warn)
        if view.wanted:
            text.append(f"  only {view.wanted!r}", ink.accent)
        if view.needle:
            text.append(f"  {len(view.matches()):,} matches of {view.needle!r}", ink.accent)
        text.append(f"  {run.path}", ink.dim)
        text.truncate(max(1, self.size.width - 2), overflow="ellipsis")
        self.query_one("#about", Static).update(text)

    def on_lines_moved(self) -> None:
        """The cursor has moved."""
        self._tell()

    def action_search(self) -> None:
        """Search."""

        def take(text: str | None) -> None:
            if text is None:
                return
            self.log_view.needle = text
            if text and not self.log_view.to_match(-1):
                self.notify(f"{text!r} is nowhere in these lines", timeout=3, markup=False)
            self.log_view.refresh()
            self._tell()

        self.app.push_screen(Ask("search", self.log_view.needle, note="n and N go from match to match"), take)

    def action_match(self, by: int) -> None:
        """The next or previous match."""
        self.log_view.to_match(by)
        self._tell()

    def action_filter(self) -> None:
        """Show only some lines."""

        def take(text: str | None) -> None:
            if text is not None:
                self.log_view.wanted = text.strip()
                self.log_view.sift()
                self._tell()

        note = "only lines with this text; !text hides them; nothing shows all"
        self.app.push_screen(Ask("filter", self.log_view.wanted, note=note), take)

    def action_follow(self) -> None:
        """Follow the end, or stay."""
        self.log_view.follow = not self.log_view.follow
        if self.log_view.follow:
            self.log_view.action_last()
        self._tell()

    def action_source(self) -> None:
        """The run's next log."""
        run = self.hub.watched
        if run is not None:
            self._source = (self._source + 1) % len(sources(run.path))
            self.tick()

    def action_copy(self) -> None:
        """Copy what is shown."""
        lines = self.log_view.shown()
        self.hub.copy("\n".join(lines[-5000:]), f"{min(5000, len(lines)):,} lines")

    def action_clear(self) -> None:
        """Clear what is shown; the file stays."""
        self.log_view.clear()
        self._tell()
