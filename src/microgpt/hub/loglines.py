"""A log file as it grows, and its lines as rows: searched, filtered, followed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from rich.text import Text

from microgpt.errors import printable
from microgpt.hub.lines import Lines
from microgpt.hub.pane import hub_of

KEPT = 100_000
CHUNK = 4 << 20
STAMP = re.compile(r"(\d{4}-\d\d-\d\dT)(\d\d:\d\d:\d\d)(\S*) (\w+) ")
WRONG = re.compile(r"\b(error|traceback|failed|nan|diverged|killed)\b", re.IGNORECASE)


class Tail:
    """Reads what is added to a file.

    Args:
        path: may appear later.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> list[str]:
        """Whole lines since the last time, free of control characters."""
        with suppress(OSError), open(self.path, "rb") as file:
            file.seek(self._offset)
            block = file.read(CHUNK)
            end = block.rfind(b"\n") + 1
            if not end and len(block) == CHUNK:
                end = len(block)
            self._offset += end
            text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", block[:end].decode("utf-8", "replace"))
            return [printable(line.rpartition("\r")[2]) for line in text.rstrip("\n").split("\n")] if end else []
        return []


class LogView(Lines):
    """Lines of a log.

    Attributes:
        follow: whether the end stays in sight.
        wanted: only lines with this text are shown; with `!` before it only those without.
        needle: what is searched for.
    """

    def __init__(self) -> None:
        super().__init__(id="log")
        self._all: list[str] = []
        self._shown: list[int] = []
        self.follow, self.wanted, self.needle = True, "", ""

    def clear(self) -> None:
        """Forget what is shown."""
        self._all.clear()
        self._shown.clear()
        self.set_count(0)

    def add(self, lines: list[str]) -> None:
        """Take new lines."""
        if not lines:
            return
        self._all += lines
        if len(self._all) > KEPT:
            del self._all[: len(self._all) - KEPT]
            self.sift()
            return
        start = len(self._all) - len(lines)
        self._shown += [i for i in range(start, len(self._all)) if self._passes(self._all[i])]
        self.set_count(len(self._shown))
        self._to_end()

    def sift(self) -> None:
        """Apply the filter again."""
        self._shown = [i for i, line in enumerate(self._all) if self._passes(line)]
        self.set_count(len(self._shown))
        self._to_end()

    def _to_end(self) -> None:
        if self.follow and self.count:
            self.cursor = self.count - 1
            self.scroll_end(animate=False)

    def _passes(self, line: str) -> bool:
        wanted = self.wanted.lower()
        if wanted.startswith("!"):
            return wanted[1:] not in line.lower()
        return wanted in line.lower()

    def shown(self) -> list[str]:
        """The lines that pass the filter."""
        return [self._all[i] for i in self._shown]

    def matches(self) -> list[int]:
        """Rows with what is searched for."""
        needle = self.needle.lower()
        return [row for row, i in enumerate(self._shown) if needle and needle in self._all[i].lower()]

    def to_match(self, by: int) -> bool:
        """Move to the next or previous match, round the ends; False where there is none."""
        rows = self.matches()
        if not rows:
            return False
        self.follow = False
        later = [r for r in rows if (r > self.cursor if by > 0 else r < self.cursor)]
        self.cursor = (later[0] if by > 0 else later[-1]) if later else rows[0 if by > 0 else -1]
        return True

    def action_move(self, by: int) -> None:
        self.follow = False
        super().action_move(by)

    def action_page(self, by: int) -> None:
        self.follow = False
        super().action_page(by)

    def action_first(self) -> None:
        self.follow = False
        super().action_first()

    def action_last(self) -> None:
        self.follow = True
        super().action_last()

    def row(self, index: int, width: int) -> Text:
        ink, line = hub_of(self).ink, self._all[self._shown[index]]
        text = Text(no_wrap=True, end="")
        stamp = STAMP.match(line)
        if stamp:
            text.append(f"{stamp[2]} ", ink.dim)
            line = line[stamp.end() :]
            if stamp[4] != "info":
                text.append(f"{stamp[4]} ", ink.accent)
        text.append(line, ink.bad if WRONG.search(line) else ink.text)
        if self.needle:
            start, plain, needle = 0, text.plain.lower(), self.needle.lower()
            while (at := plain.find(needle, start)) >= 0:
                text.stylize(ink.match, at, at + len(needle))
                start = at + len(needle)
        return text
