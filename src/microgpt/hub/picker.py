"""The data set picker: named ones and files, what is in them, and whether they are sound."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.widgets import Input, Static

from microgpt import files
from microgpt.data.sources import CORPORA, ENDINGS
from microgpt.errors import printable
from microgpt.hub.datasets import corpus_path, nearby, preview
from microgpt.hub.dialogs import CSS, Dialog
from microgpt.hub.form import word_of
from microgpt.hub.lines import Lines

if TYPE_CHECKING:
    from microgpt.hub.app import HubApp

Choice = tuple[str, str]


def kind_of(path: Path) -> str:
    """The config group's option for a file: text, jsonl or parquet."""
    return ENDINGS.get(path.suffix, "text")


def data_words(choice: Choice) -> list[str]:
    """The overrides that read a choice."""
    kind, name = choice
    return [f"data={name}"] if kind == "corpus" else [f"data={kind}", word_of("data.path", [name])]


class Sets(Lines):
    """Named data sets, then the folders and files of the current folder."""

    def __init__(self, folder: Path, hub: HubApp) -> None:
        super().__init__(id="sets")
        self.folder, self.hub = folder, hub
        self.entries: list[Choice | Path] = []

    def refill(self) -> None:
        """Read the folder."""
        self.entries = [("corpus", name) for name in CORPORA]
        self.entries += [self.folder / "..", *nearby(self.folder)]
        self.set_count(len(self.entries))

    def row(self, index: int, width: int) -> Text:
        entry, ink = self.entries[index], self.hub.ink
        if isinstance(entry, tuple):
            here = corpus_path(entry[1]) is not None
            return Text.assemble(("◆ ", ink.accent), (entry[1], ink.text), ("" if here else "  is fetched", ink.dim))
        if entry.is_dir():
            return Text.assemble(("▸ ", ink.dim), (printable(entry.name) + "/", ink.head))
        size = entry.stat().st_size if entry.exists() else 0
        return Text.assemble(
            ("  ", ink.dim), (printable(entry.name), ink.text), ("  " + files.human_bytes(size), ink.dim)
        )


class Picker(Dialog[Choice | None]):
    """Choose a data set; v checks the one under the cursor with the validate stage."""

    CSS = (
        CSS.format(name="Picker", width="130", height="90%")
        + """
    Picker #halves { height: 1fr; }
    Picker #sets { width: 32; background: $surface; }
    Picker #look { width: 1fr; padding: 0 1; border-left: solid $panel; scrollbar-size: 1 1; }
    Picker #look Static { width: 1fr; height: auto; }
    Picker Input { height: 1; border: none; padding: 0; background: $panel; display: none; }
    """
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        ("enter,space", "choose", "choose"),
        ("v", "check", "check"),
        ("slash", "type", "type a path"),
        ("q", "leave", "leave"),
    ]

    def __init__(self, hub: HubApp) -> None:
        super().__init__("data set")
        self.hub = hub
        self._reports: dict[Choice, Text] = {}

    def compose(self) -> ComposeResult:
        with Vertical(id="box"):
            with Horizontal(id="halves"):
                yield Sets(Path("."), self.hub)
                with VerticalScroll(id="look", can_focus=False):
                    yield Static(id="text")
            yield Input(placeholder="path of a file or folder, or a pattern such as texts/*.txt", compact=True)

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("#box").border_subtitle = "enter takes it, v checks it, / types a path, esc leaves"
        self.sets.refill()
        self.sets.focus()
        self._tell()

    @property
    def sets(self) -> Sets:
        """The list."""
        return self.query_one(Sets)

    def chosen(self) -> Choice | None:
        """What is under the cursor; None for a folder's own row, which is entered instead."""
        entry = self.sets.entries[self.sets.cursor]
        if isinstance(entry, tuple):
            return entry
        return None if entry.is_dir() else (kind_of(entry), str(entry))

    def on_lines_moved(self) -> None:
        """Look into another one."""
        self._tell()

    def _tell(self) -> None:
        entry, ink = self.sets.entries[self.sets.cursor], self.hub.ink
        text = Text()
        path = corpus_path(entry[1]) if isinstance(entry, tuple) else entry
        if isinstance(entry, tuple):
            text.append(f"{entry[1]}\n", ink.head)
            text.append(f"{CORPORA[entry[1]].licence}\n", ink.dim)
        if path is None:
            text.append("not at hand: the first run fetches it", ink.warn)
        elif path.is_dir():
            text.append(f"{path.resolve().name}/\n", ink.head)
            text.append("enter looks into it", ink.dim)
        else:
            if not isinstance(entry, tuple):
                text.append(f"{printable(path.name)}\n", ink.head)
            text.append(f"{files.human_bytes(path.stat().st_size)}\n\n", ink.dim)
            for line in preview(path):
                text.append(f"{line[:300]}\n", ink.text)
        choice = self.chosen()
        if choice in self._reports:
            text.append("\n")
            text.append_text(self._reports[choice])
        self.query_one("#text", Static).update(text)

    def action_choose(self) -> None:
        """Take it, or go into the folder."""
        choice = self.chosen()
        if choice is not None:
            self.dismiss(choice)
            return
        entry = self.sets.entries[self.sets.cursor]
        if isinstance(entry, Path):
            self.sets.folder = entry.parent.parent if entry.name == ".." and entry.parent != Path(".") else entry
            self.sets.refill()
            self.sets.cursor = len(CORPORA)
            self._tell()

    def on_lines_chosen(self) -> None:
        """A click on the cursor's row."""
        self.action_choose()

    def action_type(self) -> None:
        """Type a path."""
        field = self.query_one(Input)
        field.display = True
        field.focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take what was typed."""
        text = event.value.strip()
        if text:
            path = Path(text)
            inside = next(iter(sorted(path.iterdir())), path) if path.is_dir() else path
            self.dismiss((kind_of(inside), text))

    def action_check(self) -> None:
        """Let the validate stage read all of it."""
        choice = self.chosen()
        if choice is None:
            return
        ink = self.hub.ink
        folder = self.hub.outputs / ".hub" / f"check-{len(self._reports)}-{id(self):x}"
        words = [*data_words(choice), "tracking=off", "tracking.progress=false", f"hydra.run.dir={folder}"]

        def done(code: int, printed: str) -> None:
            self._reports[choice] = self._report(folder, code, printed)
            shutil.rmtree(folder, ignore_errors=True)
            if self.is_mounted:
                self._tell()

        self._reports[choice] = Text("reading all of it ...", ink.accent)
        self.hub.launcher.start("validate", words, done)
        self._tell()

    def _report(self, folder: Path, code: int, printed: str) -> Text:
        from microgpt.data.report import DataReport
        from microgpt.validate import rows_of

        ink, text = self.hub.ink, Text("Report\n", self.hub.ink.head)
        try:
            report = DataReport(**files.read_json(folder / "report.json"))
        except (OSError, ValueError, TypeError):
            return text.append(printed or f"the check ended with exit code {code}", ink.bad)
        for name, value in rows_of(report):
            text.append(f"{name:<24}", ink.dim)
            text.append(f"{printable(value)}\n", ink.bad if name == "bad rows" and report.bad else ink.text)
        for line in report.bad_shown:
            text.append(f"  {printable(line)}\n", ink.bad)
        return text
