"""The hub: six tabs over one watched run."""

from __future__ import annotations

import locale
import os
from functools import partial
from pathlib import Path
from typing import Any

from rich.style import Style
from textual.app import App, ComposeResult, SystemCommand
from textual.containers import Container
from textual.filter import LineFilter
from textual.screen import Screen

from microgpt.hub.frame import Hints, TabBar, shortened
from microgpt.hub.ink import PLAIN, THEMES, Ink, NoColour, OnlyAscii, ink_of
from microgpt.hub.keys import EVERYWHERE, TABS, bindings
from microgpt.hub.launch import Launcher, tail
from microgpt.hub.pane import Pane
from microgpt.hub.watch import Watched
from microgpt.runs.find import OUTPUTS, all_runs
from microgpt.runs.folder import LOG

TICK_S = 0.5


def speaks_unicode() -> bool:
    """Whether the terminal's encoding can hold more than ASCII."""
    words = [os.environ.get(name, "") for name in ("LC_ALL", "LC_CTYPE", "LANG")]
    told = next((w for w in words if w), "")
    if os.environ.get("TERM", "") in ("dumb", "linux", "vt100"):
        return False
    return "utf" in told.lower() or (not told and "utf" in locale.getpreferredencoding(False).lower())


class Body(Screen[None]):
    """The screen with the tabs; tab moves between them, not between widgets."""

    BINDINGS = bindings(EVERYWHERE[:2])

    def compose(self) -> ComposeResult:
        yield TabBar()
        yield Container(id="panes")
        yield Hints()

    async def on_mount(self) -> None:
        """The panes need a place before one can be shown."""
        hub: Any = self.app
        await hub.open_body(self)

    def action_next_tab(self) -> None:
        """Next tab."""
        hub: Any = self.app
        hub.action_next_tab()

    def action_previous_tab(self) -> None:
        """Previous tab."""
        hub: Any = self.app
        hub.action_previous_tab()


class HubApp(App[None]):
    """Configure, start, watch, compare and talk to models.

    Args:
        outputs: where the runs are.
        ascii_only: show nothing but ASCII.
        theme: name of a theme, without `microgpt-`.
        run: a run folder to watch at first; the newest that is running, or the newest, where none is given.
        tab: the tab that is shown at first.

    Attributes:
        watched: the run that Monitor and Logs show.
        marked: runs whose curves are laid over it.
        launcher: starts and stops processes.
        ink: the styles of the theme.
        tab: name of the tab that is shown.
    """

    TITLE = "microgpt hub"
    BINDINGS = bindings(EVERYWHERE)
    CSS = """
    Screen { background: $background; }
    #panes { height: 1fr; }
    Toast { max-width: 90%; }
    """
    ENABLE_COMMAND_PALETTE = True

    def __init__(
        self,
        outputs: Path = OUTPUTS,
        ascii_only: bool | None = None,
        theme: str = "",
        run: str = "",
        tab: str = "train",
    ) -> None:
        super().__init__()
        self.outputs = outputs
        self.ascii_only = not speaks_unicode() if ascii_only is None else ascii_only
        self.tab, self._asked = tab, run
        for each in THEMES:
            self.register_theme(each)
        wanted = f"microgpt-{theme}" if theme else PLAIN.name if self.no_color else THEMES[0].name
        self.theme = wanted if wanted in self.available_themes else THEMES[0].name
        self.ink: Ink = ink_of(self.current_theme)
        self.watched: Watched | None = None
        self.marked: dict[Path, Watched] = {}
        self.launcher = Launcher(outputs)
        self._body: Screen[None] | None = None

    def get_default_screen(self) -> Screen[Any]:
        return Body()

    def get_line_filters(self) -> list[LineFilter]:
        filters = list(super().get_line_filters())
        if self.theme == PLAIN.name:
            filters.append(NoColour())
        if self.ascii_only:
            filters.append(OnlyAscii())
        return filters

    # --- tabs -------------------------------------------------------------------------------------------------

    async def open_body(self, body: Screen[None]) -> None:
        """Show the first tab; called by the screen once it is there."""
        self._body = body
        self.theme_changed_signal.subscribe(self, self._rethemed)
        await self._show(self.tab)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        """After the first picture: look for a run to watch, then look again twice a second."""
        self.watch_newest()
        self.set_interval(TICK_S, self.tick)

    def watch_newest(self) -> None:
        """Watch the run that was asked for, else the newest that is running, else the newest."""
        from microgpt.errors import MicrogptError
        from microgpt.runs.find import find_run

        if self._asked:
            try:
                self.follow(find_run(self._asked).path)
            except MicrogptError as error:
                self.notify(str(error), severity="error", markup=False)
            self._asked = ""
            return
        runs = all_runs(self.outputs)
        running = [run for run in runs if run.status == "RUNNING"]
        if runs and self.watched is None:
            self.follow((running or runs)[-1].path)

    def follow(self, path: Path) -> None:
        """Watch a run from now on."""
        if self.watched is None or self.watched.path != path:
            self.watched = Watched(path)
        self.tick()

    def panes(self) -> list[Pane]:
        """The tabs that have been shown."""
        return list(self._body.query(Pane)) if self._body is not None else []

    def pane(self, name: str) -> Pane | None:
        """A tab, once it has been shown."""
        return next((pane for pane in self.panes() if pane.id == f"pane_{name}"), None)

    async def _show(self, name: str) -> None:
        assert self._body is not None
        if self.pane(name) is None:
            await self._body.query_one("#panes").mount(_make(name))
        self.tab = name
        for each in self.panes():
            each.display = each.id == f"pane_{name}"
        pane = self.pane(name)
        assert pane is not None
        pane.entered()
        pane.tick()
        self.refresh_frame()

    def action_show_tab(self, name: str) -> None:
        """Show a tab."""
        self.call_next(self._show, name)

    def action_next_tab(self) -> None:
        """Next tab."""
        self.action_show_tab(TABS[(TABS.index(self.tab) + 1) % len(TABS)])

    def action_previous_tab(self) -> None:
        """Previous tab."""
        self.action_show_tab(TABS[(TABS.index(self.tab) - 1) % len(TABS)])

    async def do(self, action: str) -> None:
        """Do what a hint stands for: `app.x` or `pane_name.x`."""
        where, _, what = action.partition(".")
        node = self if where == "app" else self.pane(self.tab)
        if node is not None:
            await self.run_action(what, node)

    # --- the watched run --------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Look at the files and processes again."""
        for note in self.launcher.poll():
            if note.folder is not None:
                self.follow(note.folder)
            if note.text:
                self.notify(note.text, severity="error" if note.failed else "information", markup=False, timeout=10)
        before = self.watched.status if self.watched is not None else ""
        for each in (self.watched, *self.marked.values()):
            if each is not None:
                each.look()
        if self.watched is not None:
            self._tell_end(self.watched, before)
            for alert in self.watched.fresh_alerts():
                self.notify(alert.text, title=alert.title, severity="warning", markup=False, timeout=12)
        pane = self.pane(self.tab)
        if pane is not None:
            pane.tick()
        self.refresh_frame()

    def _tell_end(self, run: Watched, before: str) -> None:
        """Tell how a run ended that somebody else has started; of our own the launcher tells."""
        own = any(run.path in child.folders for child in self.launcher.children)
        if before != "RUNNING" or run.status not in ("FAILED", "KILLED", "FINISHED") or own:
            return
        last = tail(run.path / LOG, 2) if run.status != "FINISHED" else []
        text = "\n".join([f"{run.name}: {run.status}", *last])
        self.notify(text, severity="information" if run.status == "FINISHED" else "error", markup=False, timeout=10)

    def refresh_frame(self) -> None:
        """Draw the first and the last line again."""
        if self._body is not None:
            for widget in self._body.query("TabBar, Hints"):
                widget.refresh()

    def state_line(self, width: int) -> tuple[str, Style]:
        """What the watched run does, in so many columns, and its style."""
        if self.watched is None:
            return shortened("no run yet", width), self.ink.dim
        text, kind = self.watched.state(width)
        styles = {"run": self.ink.good, "done": self.ink.dim, "bad": self.ink.bad, "warn": self.ink.warn}
        return shortened(text, width), styles[kind]

    def action_refresh(self) -> None:
        """Read everything again."""
        if self.watched is not None:
            self.watched = Watched(self.watched.path)
        self.watch_newest()
        self.tick()
        self.notify("read again", timeout=2)

    async def action_start(self) -> None:
        """Start a run with the settings of the Train tab."""
        await self._show("train")
        pane: Any = self.pane("train")
        pane.start()

    def begin(self, words: list[str]) -> None:
        """Start a training process and tell how it is called elsewhere."""
        self.launcher.start("train", words)
        self.notify("starting; it goes on when the hub is left", timeout=4)

    async def load_settings(self, overrides: list[str]) -> None:
        """Show a recorded run's settings in the Train tab."""
        await self._show("train")
        pane: Any = self.pane("train")
        pane.load(overrides)

    async def talk_to(self, reference: str, side: str) -> None:
        """Show the Chat tab with a model on a side."""
        await self._show("chat")
        pane: Any = self.pane("chat")
        pane.load(reference, side)

    def action_stop(self) -> None:
        """Stop the watched run; it saves first. Once more stops it at once."""
        if self.watched is None or self.watched.status != "RUNNING":
            self.notify("no run is going on", timeout=3)
            return
        self.notify(self.launcher.stop(self.watched.path), markup=False)

    # --- looks ------------------------------------------------------------------------------------------------

    def action_next_theme(self) -> None:
        """Next of the hub's four themes."""
        names = [t.name for t in THEMES]
        at = names.index(self.theme) if self.theme in names else -1
        self.theme = names[(at + 1) % len(names)]

    def _rethemed(self, theme: Any) -> None:
        self.ink = ink_of(theme)
        for pane in self.panes():
            pane.restyle()
        self.refresh_frame()
        self.refresh()

    def copy(self, text: str, what: str) -> None:
        """Copy by the terminal itself (OSC 52), which works over SSH too."""
        self.copy_to_clipboard(text)
        self.notify(f"copied {what}", timeout=3, markup=False)

    def action_help(self) -> None:
        """Every key."""
        from microgpt.hub.help import help_page

        self.push_screen(help_page(self.tab, self.ink))

    def get_system_commands(self, screen: Screen[Any]) -> Any:
        """The command palette: every tab, key and theme."""
        from microgpt.hub.help import commands

        for title, help_text, action in commands(self.tab):
            yield SystemCommand(title, help_text, partial(self.do, action))
        for theme in THEMES:
            name = theme.name.removeprefix("microgpt-")
            yield SystemCommand(f"Theme: {name}", "colours", partial(setattr, self, "theme", theme.name))

    async def action_quit(self) -> None:
        """Leave; runs go on."""
        for pane in self.panes():
            leaving = getattr(pane, "leaving", None)
            if leaving is not None:
                leaving()
        self.exit()


def _make(name: str) -> Pane:
    """A tab; its code is imported when it is first shown."""
    from importlib import import_module

    kind = getattr(import_module(f"microgpt.hub.{name}"), f"{name.capitalize()}Pane")
    return kind(id=f"pane_{name}")
