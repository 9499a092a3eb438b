"""The form as rows: group, name, value, what is changed and what is wrong."""

from __future__ import annotations

from rich.text import Text

from microgpt.config.search import option_help
from microgpt.hub.form import Form, Row, parts, shown
from microgpt.hub.ink import Ink
from microgpt.hub.lines import Lines
from microgpt.hub.pane import hub_of

NAME_AT, VALUE_AT, HELP_AT = 2, 21, 36


class FormView(Lines):
    """Draws a Form.

    Args:
        form: what is drawn.

    Attributes:
        rows: those that are shown.
        only_changed: whether fields that were not changed are left out.
    """

    def __init__(self, form: Form) -> None:
        super().__init__(id="form")
        self.form = form
        self.only_changed = False
        self.rows: list[Row] = []

    def refill(self) -> None:
        """Make the rows again and keep the cursor on its field."""
        here = self.rows[self.cursor] if self.cursor < len(self.rows) else None
        self.rows = self.form.rows(self.only_changed)
        self.set_count(len(self.rows))
        if here in self.rows:
            self.cursor = self.rows.index(here)
        elif self.rows and not self.selectable(self.cursor):
            self.action_move(1)

    def selectable(self, index: int) -> bool:
        return self.rows[index].kind != "head"

    @property
    def here(self) -> Row | None:
        """The row under the cursor."""
        return self.rows[self.cursor] if self.cursor < len(self.rows) else None

    def row(self, index: int, width: int) -> Text:
        ink, row, form = hub_of(self).ink, self.rows[index], self.form
        if row.kind != "field":
            return self._group(row, width)
        leaf = row.key.rpartition(".")[2]
        problem = form.problems.get(row.key, "")
        changed = row.key in form.changes
        mark, style = ("✗", ink.bad) if problem else ("●", ink.changed) if changed else (" ", ink.text)
        text = Text(f"{mark} ", style)
        text.append(leaf.ljust(VALUE_AT - NAME_AT - 1)[: VALUE_AT - NAME_AT - 1] + " ", ink.text)
        value = form.value(row.key)
        item = form.settings[row.key]
        text.append(value or "-", style if changed or problem else ink.dim if value in ("", "auto") else ink.text)
        if problem:
            text.append(f"  must be {problem.removeprefix('must be ')}", ink.bad)
        elif changed:
            several = len(parts(item, value))
            note = f"  {several} values: a sweep" if several > 1 else f"  ({shown(form.inherited[row.key]) or '-'})"
            text.append(note, ink.dim)
        elif width > HELP_AT + 24:
            text.append(" " * max(2, HELP_AT - text.cell_len))
            text.append(item.help, ink.dim)
        return text

    def _group(self, row: Row, width: int) -> Text:
        ink, form = hub_of(self).ink, self.form
        own = row.key in form.chosen or (row.key == "experiment" and form.experiment)
        text = Text("● " if own else "  ", ink.changed if own else ink.dim)
        text.append(row.key or "run", ink.head)
        if row.kind == "group":
            text.append(" " * max(1, VALUE_AT - text.cell_len))
            text.append(form.option(row.key) or "none", ink.changed if own else ink.accent)
            text.append(" ▾ ", ink.dim)
        rest = width - text.cell_len - 1
        if rest > 0:
            text.append(" " + "─" * (rest - 1), ink.dim)
        return text


def meaning(form: Form, row: Row | None, ink: Ink) -> Text:
    """What a row is: help, range, unit, what is inherited, what is wrong."""
    text = Text()
    if row is None:
        return text
    if row.kind != "field":
        text.append(f"{row.key}\n", ink.head)
        option = form.option(row.key)
        if told := option_help(row.key, option) if option else "":
            text.append(f"{option}: {told}\n", ink.text)
        what = "presets of everything" if row.key == "experiment" else "where its fields start from"
        text.append(f"{what}: {', '.join(form.options(row.key))}\n", ink.text)
        text.append("enter chooses, space takes the next", ink.dim)
        return text
    item = form.settings[row.key]
    text.append(f"{row.key}\n", ink.head)
    text.append(f"{item.help}\n", ink.text)
    unit = f", in {item.unit}" if item.unit else ""
    text.append(f"{item.range}{unit}\n", ink.dim)
    text.append("inherited ", ink.dim)
    text.append(f"{shown(form.inherited[row.key]) or '-'}", ink.text)
    if row.key in form.changes:
        text.append("   yours ", ink.dim)
        text.append(form.changes[row.key], ink.changed)
    if problem := form.problems.get(row.key):
        text.append(f"\n{problem}", ink.bad)
    return text
