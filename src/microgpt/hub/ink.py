"""Colours: four themes, the styles made from them, and filters for terminals without colour or Unicode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.color import Color
from textual.filter import LineFilter
from textual.theme import Theme

DARK = Theme(
    name="microgpt-dark",
    primary="#7aa2f7",
    secondary="#bb9af7",
    accent="#e0af68",
    success="#9ece6a",
    warning="#e0af68",
    error="#f7768e",
    foreground="#c0caf5",
    background="#16161e",
    surface="#1a1b26",
    panel="#24283b",
    dark=True,
)
LIGHT = Theme(
    name="microgpt-light",
    primary="#2e5cb8",
    secondary="#7847bd",
    accent="#8a5a00",
    success="#3d6b1f",
    warning="#8a5a00",
    error="#b3243b",
    foreground="#23283b",
    background="#f6f6fa",
    surface="#ffffff",
    panel="#e4e6ef",
    dark=False,
)
# Okabe and Ito's palette, told apart with every common kind of colour blindness
SAFE = Theme(
    name="microgpt-safe",
    primary="#56b4e9",
    secondary="#cc79a7",
    accent="#e69f00",
    success="#009e73",
    warning="#f0e442",
    error="#d55e00",
    foreground="#f0f0f0",
    background="#101010",
    surface="#181818",
    panel="#2a2a2a",
    dark=True,
)
PLAIN = Theme(
    name="microgpt-plain",
    primary="#ffffff",
    foreground="#ffffff",
    background="#000000",
    surface="#000000",
    panel="#000000",
    dark=True,
)
THEMES = (DARK, LIGHT, SAFE, PLAIN)
SERIES: Mapping[str, tuple[str, ...]] = {
    DARK.name: ("#7aa2f7", "#e0af68", "#9ece6a", "#f7768e", "#bb9af7", "#7dcfff"),
    LIGHT.name: ("#2e5cb8", "#8a5a00", "#3d6b1f", "#b3243b", "#7847bd", "#0f6f80"),
    SAFE.name: ("#56b4e9", "#e69f00", "#009e73", "#cc79a7", "#f0e442", "#d55e00"),
    PLAIN.name: ("#ffffff",) * 6,
}


@dataclass(frozen=True)
class Ink:
    """Styles of one theme.

    Attributes:
        text, dim, head, accent, good, warn, bad: kinds of text.
        cursor: the row that keys act on.
        changed: a value that the user has set.
        match: text that a search found.
        series: a line for each of several runs.
        plain: whether colours say nothing here.
    """

    text: Style
    dim: Style
    head: Style
    accent: Style
    good: Style
    warn: Style
    bad: Style
    cursor: Style
    changed: Style
    match: Style
    series: tuple[Style, ...]
    plain: bool


def ink_of(theme: Theme) -> Ink:
    """The styles of a theme; one without colour tells by weight, underlines and reversal instead."""
    series = tuple(Style(color=c) for c in SERIES.get(theme.name, SERIES[DARK.name]))
    if theme.name == PLAIN.name:
        bold, none = Style(bold=True), Style()
        reverse = Style(reverse=True)
        return Ink(
            none,
            none,
            Style(bold=True, underline=True),
            bold,
            none,
            bold,
            reverse,
            reverse,
            bold,
            reverse,
            series,
            True,
        )

    def of(colour: str | None, bold: bool = False) -> Style:
        return Style(color=colour or theme.foreground, bold=bold or None)

    base = Color.parse(theme.background or "#000000")
    fore = Color.parse(theme.foreground or "#ffffff")
    primary = Color.parse(theme.primary)
    return Ink(
        text=of(theme.foreground),
        dim=Style(color=base.blend(fore, 0.62).hex6.lower()),
        head=of(theme.primary, bold=True),
        accent=of(theme.accent),
        good=of(theme.success),
        warn=of(theme.warning),
        bad=of(theme.error, bold=True),
        cursor=Style(bgcolor=base.blend(primary, 0.28).hex6.lower()),
        changed=of(theme.accent, bold=True),
        match=Style(color=theme.background, bgcolor=theme.accent),
        series=series,
        plain=False,
    )


class NoColour(LineFilter):
    """Takes colours out and leaves weight, underlines and reversal."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [Segment(s.text, s.style.without_color if s.style else None, s.control) for s in segments]


#: what a terminal without Unicode shows in place of a character; all have one column
ASCII = str.maketrans(
    {
        **dict.fromkeys("─━═▔▁▂▃╌", "-"),
        **dict.fromkeys("│┃║▏▎▍▌▐▕", "|"),
        **dict.fromkeys("┌┐└┘├┤┬┴┼╭╮╰╯┏┓┗┛╱╲", "+"),
        **dict.fromkeys("█▉▊▋▇▆▅▄", "#"),
        **dict.fromkeys("░▒▓", ":"),
        **dict.fromkeys("●◆■★◉", "*"),
        **dict.fromkeys("○◇□·•", "."),
        **dict.fromkeys("▸▶→›", ">"),
        **dict.fromkeys("◂◀←‹", "<"),
        **dict.fromkeys("▴▲↑", "^"),
        **dict.fromkeys("▾▼↓", "v"),
        **dict.fromkeys("✓✔", "+"),
        **dict.fromkeys("✗✘×", "x"),
        "…": ".", "–": "-", "—": "-", "≤": "<", "≥": ">", "Δ": "d", "±": "~", "⏸": "=", "\u00a0": " ",
    }
)  # fmt: skip


def as_ascii(text: str) -> str:
    """A text in ASCII alone, as wide as before."""
    from rich.cells import cell_len

    told = text.translate(ASCII)
    if told.isascii():
        return told
    return "".join(c if c.isascii() else "?" * cell_len(c) for c in told)


class OnlyAscii(LineFilter):
    """Replaces what a terminal without Unicode cannot show."""

    def apply(self, segments: list[Segment], background: Color) -> list[Segment]:
        return [s if s.control or s.text.isascii() else Segment(as_ascii(s.text), s.style) for s in segments]
