"""The Runs tab: every run, sorted, filtered, compared, deleted and started again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.style import Style
from rich.text import Text
from textual.widgets import Static

from microgpt import files
from microgpt.errors import MicrogptError
from microgpt.hub import jobs
from microgpt.hub.dialogs import Ask, Page
from microgpt.hub.expression import ExpressionError, compiled
from microgpt.hub.folderview import folder_text
from microgpt.hub.frame import shortened
from microgpt.hub.ink import Ink
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.runlist import RunRow, all_rows, differences, with_config
from microgpt.hub.series import duration
from microgpt.hub.table import Column, Table
from microgpt.hub.tablepane import TablePane
from microgpt.hub.trash import Trash
from microgpt.hub.watch import Watched

SORTS = ("started", "name", "status", "steps", "val_loss", "val_bpb", "parameters", "seconds")
COLUMNS = (
    Column("name", 0),
    Column("status", 9, needed=44),
    Column("steps", 13, right=True, needed=72),
    Column("val_loss", 9, right=True),
    Column("val_bpb", 9, right=True, needed=90),
    Column("parameters", 12, right=True, needed=104),
    Column("seconds", 11, right=True, needed=120),
    Column("started", 19, needed=76),
)
AGE_S = 2.0


def _number(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


class RunTable(Table[RunRow]):
    """The rows; marked ones have the colour of their curve."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, "runs")
        self.ink: Ink | None = None
        self.watched: Path | None = None
        self.marked: Sequence[Path] = ()

    def same(self, one: RunRow, other: RunRow) -> bool:
        return one.values.get("path") == other.values.get("path")

    def cells(self, item: RunRow) -> Sequence[tuple[str, Style]]:
        ink, v = self.ink, item.values
        assert ink is not None
        mark, style = ("● ", ink.series[0]) if item.path and item.path == self.watched else ("  ", ink.text)
        if item.path is not None and item.path in self.marked:
            others = [p for p in self.marked if p != self.watched]
            at = others.index(item.path) + 1 if item.path in others else 0
            mark, style = "◆ ", ink.series[at % len(ink.series)]
        status = str(v.get("status", ""))
        tone = {"RUNNING": ink.good, "FAILED": ink.bad, "KILLED": ink.warn}.get(status, ink.dim)
        steps = f"{v.get('steps') or 0:,}/{v.get('max_steps') or 0:,}" if item.path else "in MLflow"
        parameters = v.get("parameters")
        seconds = v.get("seconds")
        return (
            (mark + item.name, style),
            (status, tone),
            (steps, ink.text),
            (_number(v.get("val_loss")), ink.text),
            (_number(v.get("val_bpb")), ink.text),
            (f"{parameters:,}" if isinstance(parameters, int) else "-", ink.dim),
            (duration(seconds) if isinstance(seconds, (int, float)) else "-", ink.dim),
            (str(v.get("started", "")), ink.dim),
        )


class RunsPane(TablePane):
    """A table, its head above, a line about filter and marks below."""

    BINDINGS = bindings(BY_TAB["runs"])
    PARTS = ("head", "runs", "foot")
    EVERY = 4

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.rows: list[RunRow] = []
        self.sort, self.down = "started", True
        self.trash: Trash | None = None

    def made(self) -> RunTable:
        return RunTable()

    @property
    def table(self) -> RunTable:
        """The table."""
        return self.query_one(RunTable)

    def leaving(self) -> None:
        """The hub is left: what was deleted is gone."""
        if self.trash is not None:
            self.trash.empty()

    def read(self) -> None:
        """Read the folders."""
        self.rows = all_rows(self.hub.outputs)
        self.tell()

    def tell(self) -> None:
        """Sort, filter and draw."""
        if not self.whole:
            return
        hub, table = self.hub, self.table
        table.ink, table.watched = hub.ink, hub.watched.path if hub.watched else None
        table.marked = list(hub.marked)
        wrong = ""
        shown = self.rows
        try:
            test = compiled(self.filter)
            shown = [row for row in self.rows if test(with_config(row) if self.filter else row.values)]
        except ExpressionError as error:
            wrong = str(error)
        known = [row for row in shown if row.values.get(self.sort) is not None]
        known.sort(key=lambda row: row.values[self.sort], reverse=self.down)
        table.fill([*known, *(row for row in shown if row.values.get(self.sort) is None)])
        self.query_one("#head", Static).update(table.head(table.size.width, self.sort, self.down))
        foot = Text(no_wrap=True, end="")
        foot.append(f"{len(shown)} of {len(self.rows)} runs", hub.ink.dim)
        if self.filter:
            foot.append(f"  {self.filter}", hub.ink.accent)
        if hub.marked:
            foot.append(f"  {len(hub.marked)} marked", hub.ink.changed)
        if wrong:
            foot.append(f"  {wrong}", hub.ink.bad)
        here = table.here
        if here is not None and not wrong:
            foot.append(f"  {here.values.get('path', '')}", hub.ink.dim)
        if not self.rows:
            foot = Text("there is no run yet: s in Train starts one", hub.ink.dim)
        self.query_one("#foot", Static).update(foot)

    def on_lines_chosen(self) -> None:
        """A click on the cursor's row."""
        self.action_open()

    def here(self, what: str) -> Path | None:
        """The folder under the cursor; a run that has none cannot be worked on."""
        row = self.table.here
        if row is None:
            return None
        if row.path is None:
            self.notify(f"only MLflow knows this run: there is no folder to {what}", severity="warning", timeout=4)
        return row.path

    def action_open(self) -> None:
        """Watch it."""
        path = self.here("watch")
        if path is not None:
            self.hub.follow(path)
            self.hub.action_show_tab("monitor")

    def action_mark(self) -> None:
        """Mark it, or take the mark away."""
        path = self.here("mark")
        if path is None:
            return
        if path in self.hub.marked:
            del self.hub.marked[path]
        else:
            run = Watched(path)
            run.look()
            self.hub.marked[path] = run
        self.table.action_move(1)
        self.tell()

    def action_sort(self) -> None:
        """Sort by the next column."""
        self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
        self.down = self.sort == "started"
        self.tell()

    def action_reverse(self) -> None:
        """Turn the order round."""
        self.down = not self.down
        self.tell()

    def action_filter(self) -> None:
        """Ask for an expression."""

        def wrong(text: str) -> str:
            try:
                test = compiled(text)
                for row in self.rows[:1]:
                    test(with_config(row))
            except ExpressionError as error:
                return str(error)
            return ""

        def take(text: str | None) -> None:
            if text is not None:
                self.filter = text.strip()
                self.tell()

        note = "val_loss < 2 and status = FINISHED; model.n_layer >= 2; name ~ tiny; or a word of the name"
        self.app.push_screen(Ask("filter", self.filter, wrong, note), take)

    def action_compare(self) -> None:
        """What the marked runs differ in; without marks, the cursor's run against the watched one."""
        chosen = [row for row in self.rows if row.path in self.hub.marked]
        here = self.table.here
        if len(chosen) < 2 and here is not None and here not in chosen:
            chosen.append(here)
        if len(chosen) < 2:
            self.notify("mark two runs or more with space", timeout=3)
            return
        self.app.push_screen(Page("differences", compared(chosen, self.hub.ink, self.size.width)))

    def action_delete(self) -> None:
        """Delete it; u brings it back until the hub is left."""
        path = self.here("delete")
        if path is None:
            return
        self.trash = self.trash or Trash(self.hub.outputs)
        try:
            self.trash.put(path)
        except MicrogptError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.hub.marked.pop(path, None)
        if self.hub.watched is not None and self.hub.watched.path == path:
            self.hub.watched = None
        self.notify(f"deleted {path.name}: u brings it back until the hub is left", timeout=6, markup=False)
        self.read()

    def action_undo(self) -> None:
        """Bring the last one back."""
        try:
            back = self.trash.undo() if self.trash is not None else None
        except MicrogptError as error:
            self.notify(str(error), severity="error", markup=False)
            return
        self.notify(f"{back.name} is back" if back else "nothing was deleted", timeout=3, markup=False)
        self.read()

    def action_resume(self) -> None:
        """Go on with it."""
        path, row = self.here("resume"), self.table.here
        if path is not None and row is not None:
            if row.values.get("status") == "RUNNING":
                self.notify("it is going on already", timeout=3)
                return
            if files.is_locked(path):  # it has stopped, and MLflow is still being told
                self.notify("it is just ending: try again in a moment", timeout=3)
                return
            jobs.resume(self.hub, path, row.values.get("status") == "FINISHED")

    def action_from_run(self) -> None:
        """Train it again from its record."""
        path = self.here("train again")
        if path is not None:
            self.hub.begin([f"from_run={path}"])

    def action_evaluate(self) -> None:
        """Evaluate it."""
        path = self.here("evaluate")
        if path is not None:
            jobs.evaluate(self.hub, path)

    def action_export(self) -> None:
        """Export it."""
        path = self.here("export")
        if path is not None:
            jobs.export(self.hub, path)

    async def action_load(self) -> None:
        """Its settings become those of the Train tab."""
        path = self.here("load")
        if path is None:
            return
        facts = Watched(path)
        facts.look()
        await self.hub.load_settings([str(w) for w in facts.facts.get("overrides", [])])

    def action_copy(self) -> None:
        """Copy its path."""
        row = self.table.here
        if row is not None:
            self.hub.copy(str(row.values.get("path", row.name)), "the path")

    def action_folder(self) -> None:
        """What is in the run folder."""
        path = self.here("open")
        if path is not None:
            self.app.push_screen(Page(shortened(str(path), 80), folder_text(path, self.hub.ink)))


def compared(rows: Sequence[RunRow], ink: Ink, width: int) -> Text:
    """What runs differ in, a column a run."""
    first = 28 if width >= 80 else 16
    size = max(9, min(24, (min(width, 92) - first - 6) // len(rows)))
    text = Text(no_wrap=True)
    text.append("".ljust(first), ink.dim)
    for i, row in enumerate(rows):
        text.append(shortened(row.name, size - 1).ljust(size), ink.series[i % len(ink.series)])
    text.append("\n")
    for key, cells in differences(rows):
        text.append(shortened(key, first - 1).ljust(first), ink.dim)
        for cell in cells:
            text.append(shortened(cell, size - 1).ljust(size), ink.text)
        text.append("\n")
    return text
