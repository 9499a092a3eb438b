"""The Train tab: the form, what it will cost, and the start."""

from __future__ import annotations

from typing import Any

from rich.text import Text
from textual import events, work
from textual.app import ComposeResult
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Static

from microgpt.config.search import option_help
from microgpt.errors import MicrogptError
from microgpt.hub.costs import cost_rows, newest_rate
from microgpt.hub.dialogs import Choose, Sure
from microgpt.hub.form import Form, is_list
from microgpt.hub.formview import VALUE_AT, FormView, meaning
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.lines import Lines
from microgpt.hub.pane import Pane

NARROW = 76


class TrainPane(Pane):
    """Form at the left, the field's meaning and the cost at the right, the command below."""

    BINDINGS = bindings(BY_TAB["train"])
    PARTS = ("form", "meaning", "cost", "command", "edit")
    DEFAULT_CSS = """
    TrainPane { layers: below above; }
    TrainPane #halves { height: 1fr; }
    TrainPane #form { width: 3fr; }
    TrainPane #about { width: 2fr; max-width: 64; padding: 0 1; border-left: solid $panel; scrollbar-size: 1 1; }
    TrainPane #about Static { width: 1fr; height: auto; }
    TrainPane #command { height: auto; max-height: 4; padding: 0 1; border-top: solid $panel; }
    TrainPane #edit {
        layer: above; position: absolute; height: 1; border: none; padding: 0; background: $panel; display: none;
    }
    TrainPane.-narrow #halves { layout: vertical; }
    TrainPane.-narrow #form { width: 1fr; height: 1fr; }
    TrainPane.-narrow #about {
        width: 1fr; max-width: 100%; height: 7; border-left: none; border-top: solid $panel;
    }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.form = Form()
        self._composed: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str]]] = {}
        self._before = ""
        self._wrong = ""

    def compose(self) -> ComposeResult:
        with Horizontal(id="halves"):
            yield FormView(self.form)
            with VerticalScroll(id="about", can_focus=False):
                yield Static(id="meaning")
                yield Static(id="cost")
        yield Static(id="command")
        yield Input(id="edit", compact=True, select_on_focus=False)

    def on_mount(self) -> None:
        self.view.refill()
        self.view.action_first()
        self.call_after_refresh(self.recompose_config)

    @property
    def view(self) -> FormView:
        """The form's rows."""
        return self.query_one(FormView)

    def entered(self) -> None:
        self.query_one(FormView).focus()

    def on_resize(self, event: events.Resize) -> None:
        """Put the halves under each other where there is no room for both."""
        self.set_class(event.size.width < NARROW, "-narrow")
        self.call_after_refresh(self.tell)

    def restyle(self) -> None:
        super().restyle()
        self.tell()
        self.view.refresh()

    # --- composing --------------------------------------------------------------------------------------------

    @work(thread=True, exclusive=True, group="compose")
    def recompose_config(self) -> None:
        """Compose what is inherited, away from the screen's thread; Hydra takes a tenth of a second."""
        from microgpt.config.build import flat
        from microgpt.config.compose import compose
        from microgpt.config.search import chosen_options

        words = tuple(self.form.base_words())
        try:
            if words not in self._composed:
                standing = chosen_options("train", self.form.experiment.split(",")[0])
                self._composed[words] = flat(compose(list(words))), standing
            wrong = ""
        except MicrogptError as error:
            wrong = str(error)
        newest_rate(self.hub.outputs)  # reads the last runs: the cost needs it
        self.app.call_from_thread(self._take_composed, words, wrong)

    def _take_composed(self, words: tuple[str, ...], wrong: str) -> None:
        self._wrong = wrong
        if words in self._composed and words == tuple(self.form.base_words()):
            self.form.inherit(*self._composed[words])
        self.changed()

    def changed(self) -> None:
        """Draw everything again after a change."""
        if not self.whole:
            return
        self.view.refill()
        self.tell()

    # --- what is told -----------------------------------------------------------------------------------------

    def on_lines_moved(self) -> None:
        """Another field."""
        self.tell()

    def tell(self) -> None:
        """The field's meaning, the cost and the command."""
        if not self.whole:
            return
        ink = self.hub.ink
        self.query_one("#meaning", Static).update(meaning(self.form, self.view.here, ink))
        cost = Text("\n")
        if not self.form.problems and self._composed:
            cost.append("This run\n", ink.head)
            for name, value in cost_rows(self.form.config, self.hub.outputs):
                cost.append(f"{name:<11}", ink.dim)
                cost.append(f"{value}\n", ink.text)
        self.query_one("#cost", Static).update(cost)
        command = Text("$ ", ink.dim)
        command.append(self.form.command(), ink.text)
        count = self.form.runs()
        if count > 1:
            command.append(f"   a sweep of {count} runs", ink.changed)
        others = [p for k, p in self.form.problems.items() if not k]
        wrong = self._wrong or "; ".join(others)
        if self.form.problems or wrong:
            count = len(self.form.problems)
            command.append(f"\n{wrong or f'{count} mistake' + ('s' if count > 1 else '') + ' above'}", ink.bad)
        self.query_one("#command", Static).update(command)

    # --- editing ----------------------------------------------------------------------------------------------

    def action_edit(self) -> None:
        """Type the value in its place."""
        row = self.view.here
        if row is None:
            return
        edit = self.query_one("#edit", Input)
        value = self.form.option(row.key) if row.kind == "group" else self.form.value(row.key)
        self._before = value
        at = self.view.cursor - self.view.scroll_offset.y
        width = max(8, self.view.size.width - VALUE_AT)
        edit.styles.offset = (VALUE_AT, at)
        edit.styles.width = width
        edit.value = value
        edit.display = True
        edit.cursor_position = len(value)
        edit.focus()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Errors, cost and command follow each letter."""
        row = self.view.here
        if self.query_one("#edit").display and row is not None and row.kind == "field":
            self.form.set(row.key, event.value)
            self.view.refresh()
            self.tell()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the value; one that is wrong is marked and keeps the run from starting."""
        row = self.view.here
        self._end_edit()
        if row is not None and row.kind == "group":
            self._choose(row.key, event.value.strip())
        self.changed()

    def on_key(self, event: events.Key) -> None:
        """Escape takes back what was typed."""
        if event.key == "escape" and self.query_one("#edit").display:
            event.stop()
            row = self.view.here
            self._end_edit()
            if row is not None and row.kind == "field":
                self.form.set(row.key, self._before)
            self.changed()

    def on_descendant_blur(self, event: events.DescendantBlur) -> None:
        """A click elsewhere ends editing."""
        if event.widget.id == "edit":
            self.query_one("#edit").display = False

    def _end_edit(self) -> None:
        self.query_one("#edit").display = False
        self.view.focus()

    def on_lines_chosen(self, event: Lines.Chosen) -> None:
        """A click on the cursor's row."""
        if event.lines is self.view:
            self.action_choose()

    def _choose(self, group: str, option: str) -> None:
        if group == "experiment":
            self.form.experiment = option
        elif option and option != self.form.standing.get(group):
            self.form.chosen[group] = option
        else:
            self.form.chosen.pop(group, None)
        self.recompose_config()

    def action_choose(self) -> None:
        """A list where there is one; a switch is turned; else the value is typed."""
        row = self.view.here
        if row is None:
            return
        if row.kind == "group":
            self._list(row.key, self.form.options(row.key), self.form.option(row.key))
            return
        item = self.form.settings[row.key]
        if item.base is bool:
            self.action_cycle()
        elif item.choices and not is_list(item):
            self._list(row.key, list(item.choices), self.form.value(row.key))
        else:
            self.action_edit()

    def _list(self, key: str, choices: list[str], now: str) -> None:
        if key == "experiment":
            choices = ["", *choices]

        def take(index: int | None) -> None:
            if index is None:
                return
            if key in self.form.settings:
                self.form.set(key, choices[index])
                self.changed()
            else:
                self._choose(key, choices[index])

        told = {c: option_help(key, c) if key not in self.form.settings and c else "" for c in choices}
        rows = [(c or "none", ("now  " if c == now else "") + told[c]) for c in choices]
        self.app.push_screen(Choose(key, rows, choices.index(now) if now in choices else 0), take)

    def action_cycle(self) -> None:
        """The next choice of a field or group."""
        row = self.view.here
        if row is None:
            return
        if row.kind == "group":
            names = self.form.options(row.key)
            names = ["", *names] if row.key == "experiment" else names
            now = self.form.option(row.key)
            self._choose(row.key, names[(names.index(now) + 1) % len(names)] if now in names else names[0])
            return
        item = self.form.settings[row.key]
        choices = ["false", "true"] if item.base is bool else list(item.choices)
        if not choices or is_list(item):
            self.action_edit()
            return
        now = self.form.value(row.key)
        self.form.set(row.key, choices[(choices.index(now) + 1) % len(choices)] if now in choices else choices[0])
        self.changed()

    def action_reset_field(self) -> None:
        """What is inherited counts again."""
        if (row := self.view.here) is not None:
            self.form.reset(row.key)
            self.recompose_config()

    def action_reset_all(self) -> None:
        """Everything as it was at first."""
        self.form.experiment, self.form.chosen, self.form.changes = "", {}, {}
        self.recompose_config()

    def action_preset(self, name: str) -> None:
        """One of prior art's presets; what the user has changed stays changed."""
        self._choose("experiment", name)

    def action_experiment(self) -> None:
        """Choose an experiment."""
        self._list("experiment", self.form.options("experiment"), self.form.experiment)

    def action_only_changed(self) -> None:
        """Only what was changed, or all."""
        self.view.only_changed = not self.view.only_changed
        self.view.refill()

    def action_search(self) -> None:
        """Find a field."""
        keys = list(self.form.settings)
        rows = [(key.rpartition(".")[2], f"{key}  {self.form.settings[key].help}") for key in keys]

        def go(index: int | None) -> None:
            if index is not None:
                self.view.only_changed = False
                self.view.refill()
                self.view.cursor = next(i for i, r in enumerate(self.view.rows) if r.key == keys[index])

        self.app.push_screen(Choose("find a field", rows), go)

    def action_copy(self) -> None:
        """Copy the command."""
        self.hub.copy(self.form.command(), "the command")

    def action_dataset(self) -> None:
        """Choose a data set."""
        from microgpt.hub.picker import Picker

        def take(choice: tuple[str, str] | None) -> None:
            if choice is None:
                return
            kind, name = choice
            if kind == "corpus":
                self.form.reset("data.path")
                self._choose("data", name)
                return
            self.form.chosen["data"] = "jsonl" if kind == "jsonl" else "parquet" if kind == "parquet" else "text"
            self.form.changes["data.path"] = name
            self.recompose_config()

        self.app.push_screen(Picker(self.hub), take)

    # --- starting ---------------------------------------------------------------------------------------------

    def load(self, overrides: list[str]) -> None:
        """Take the settings of a recorded run."""
        self.form.load(overrides)
        self.recompose_config()

    def start(self) -> None:
        """Start what the form says; a sweep asks first."""
        if self.form.problems or self._wrong:
            self.notify("mend what is marked first", severity="error", timeout=4)
            first = next((k for k in self.form.problems if k), None)
            at = next((i for i, r in enumerate(self.view.rows) if r.key == first), None)
            if at is not None:
                self.view.cursor = at
            return
        count = self.form.runs()
        if count > 1:

            def go(sure: bool | None) -> None:
                if sure:
                    self._launch()

            self.app.push_screen(Sure("sweep", f"Start a sweep of {count} runs, one after the other?"), go)
        else:
            self._launch()

    def _launch(self) -> None:
        self.hub.begin(self.form.arguments())
