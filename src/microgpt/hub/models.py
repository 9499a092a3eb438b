"""The Models tab: checkpoints and exports, and what can be done with them."""

from __future__ import annotations

from collections.abc import Sequence

from rich.style import Style
from rich.text import Text
from textual.widgets import Static

from microgpt import files
from microgpt.errors import MicrogptError, printable
from microgpt.hub import jobs
from microgpt.hub.dialogs import Ask, Page
from microgpt.hub.ink import Ink
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.modellist import ModelRow, model_rows
from microgpt.hub.table import Column, Table
from microgpt.hub.tablepane import TablePane

COLUMNS = (
    Column("model", 0),
    Column("marks", 13, needed=56),
    Column("step", 9, right=True, needed=66),
    Column("val loss", 9, right=True),
    Column("bits/byte", 9, right=True, needed=92),
    Column("size", 9, right=True, needed=50),
    Column("kind", 6, needed=100),
)


class ModelTable(Table[ModelRow]):
    """The rows."""

    def __init__(self) -> None:
        super().__init__(COLUMNS, "models")
        self.ink: Ink | None = None

    def same(self, one: ModelRow, other: ModelRow) -> bool:
        return one.path == other.path

    def cells(self, item: ModelRow) -> Sequence[tuple[str, Style]]:
        ink = self.ink
        assert ink is not None
        best = "best" in item.marks
        return (
            (item.name, ink.text),
            (", ".join(item.marks), ink.good if best else ink.accent),
            (f"{item.step:,}", ink.text),
            (f"{item.val_loss:.4f}" if item.val_loss is not None else "-", ink.good if best else ink.text),
            (f"{item.val_bpb:.4f}" if item.val_bpb is not None else "-", ink.dim),
            (files.human_bytes(item.bytes), ink.dim),
            ("chat" if item.chat else "text", ink.dim),
        )


class ModelsPane(TablePane):
    """A table with its head above and the path below."""

    BINDINGS = bindings(BY_TAB["models"])
    PARTS = ("head", "models", "foot")

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.rows: list[ModelRow] = []

    def made(self) -> ModelTable:
        return ModelTable()

    @property
    def table(self) -> ModelTable:
        """The table."""
        return self.query_one(ModelTable)

    def read(self) -> None:
        """Read the folders."""
        self.rows = model_rows(self.hub.outputs)
        self.tell()

    def tell(self) -> None:
        """Filter and draw."""
        if not self.whole:
            return
        table, ink = self.table, self.hub.ink
        table.ink = ink
        table.fill([row for row in self.rows if self.filter.lower() in row.name.lower()])
        self.query_one("#head", Static).update(table.head(table.size.width))
        foot = Text(no_wrap=True, end="")
        if not self.rows:
            foot.append("there is no checkpoint yet: a run makes them", ink.dim)
        else:
            foot.append(f"{table.count} of {len(self.rows)} models", ink.dim)
            if self.filter:
                foot.append(f"  with {self.filter!r}", ink.accent)
            if table.here is not None:
                foot.append(f"  {table.here.path}", ink.dim)
        self.query_one("#foot", Static).update(foot)

    async def on_lines_chosen(self) -> None:
        """A click on the cursor's row."""
        await self.action_talk("a")

    async def action_talk(self, side: str) -> None:
        """Talk to it."""
        if self.table.here is not None:
            await self.hub.talk_to(str(self.table.here.path), side)

    def action_info(self) -> None:
        """Everything that is known of it."""
        from microgpt.checkpoints.model import described, open_model

        here, ink = self.table.here, self.hub.ink
        if here is None:
            return
        text = Text()
        try:
            for name, value in described(open_model(here.path)).items():
                text.append(f"{name:<12}", ink.dim)
                text.append(f"{printable(value)}\n", ink.text)
        except MicrogptError as error:
            text.append(str(error), ink.bad)
        self.app.push_screen(Page(here.name, text))

    def action_export(self) -> None:
        """Export it."""
        if self.table.here is not None:
            jobs.export(self.hub, self.table.here.path)

    def action_alias(self) -> None:
        """Register it under an alias."""
        if self.table.here is not None:
            jobs.register(self.hub, self.table.here.path)

    def action_copy(self) -> None:
        """Copy its path."""
        if self.table.here is not None:
            self.hub.copy(str(self.table.here.path), "the path")

    def action_filter(self) -> None:
        """Show only some names."""

        def take(text: str | None) -> None:
            if text is not None:
                self.filter = text.strip()
                self.tell()

        self.app.push_screen(Ask("names with", self.filter), take)
