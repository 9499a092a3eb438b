"""Curves as text: braille dots, two across and four down in a cell, or ASCII where there is no braille."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from rich.style import Style
from rich.text import Text

from microgpt.hub.series import number

DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
ASCII_CELLS = " '.:"


@dataclass(frozen=True)
class Curve:
    """What is drawn.

    Attributes:
        steps: ascending.
        values: as many; those that are not finite leave a gap, and a mark at the top.
        style: of its dots.
        dash: 0 draws every column of dots, n leaves each n-th out: to tell curves apart without colour.
    """

    steps: Sequence[int]
    values: Sequence[float]
    style: Style
    dash: int = 0


@dataclass(frozen=True)
class Column:
    """The values that fall into one column of dots.

    Attributes:
        at: the column.
        low, high, first, last: of its finite values, None where there is none.
        broken: whether one was not finite.
    """

    at: int
    low: float | None
    high: float | None
    first: float | None
    last: float | None
    broken: bool


def columns(steps: Sequence[int], values: Sequence[float], start: float, end: float, count: int) -> list[Column]:
    """Smallest and largest value of each column of dots, so that no spike is lost however many steps there are."""
    found: list[Column] = []
    span = max(end - start, 1e-9)
    low = bisect_left(steps, start)
    stop = bisect_right(steps, end)
    while low < stop:
        # the middle of a column is a step: the last step falls into the last column, not beyond it
        at = min(count - 1, int((steps[low] - start) / span * (count - 1) + 0.5))
        edge = start + (at + 0.5) / max(1, count - 1) * span
        high = stop if at >= count - 1 else max(low + 1, bisect_left(steps, edge, low, stop))
        part = values[low:high]
        finite = [v for v in part if math.isfinite(v)]
        if finite:
            found.append(Column(at, min(finite), max(finite), finite[0], finite[-1], len(finite) < len(part)))
        else:
            found.append(Column(at, None, None, None, None, True))
        low = high
    return found


class Canvas:
    """Dots in cells, each cell with the style of what was drawn into it last.

    Args:
        width, height: in cells.
        ascii_only: one dot across and two down in a cell, drawn with `'`, `.` and `:`.
    """

    def __init__(self, width: int, height: int, ascii_only: bool = False) -> None:
        self.width, self.height, self.ascii_only = width, height, ascii_only
        self.across, self.down = (1, 2) if ascii_only else (2, 4)
        self._bits = [[0] * width for _ in range(height)]
        self._styles: list[list[Style | None]] = [[None] * width for _ in range(height)]
        self._marks: dict[tuple[int, int], tuple[str, Style]] = {}

    @property
    def dots_wide(self) -> int:
        """Columns of dots."""
        return self.width * self.across

    @property
    def dots_high(self) -> int:
        """Rows of dots."""
        return self.height * self.down

    def dot(self, x: int, y: int, style: Style) -> None:
        """Set a dot; y grows downwards. One outside is left out."""
        if not (0 <= x < self.dots_wide and 0 <= y < self.dots_high):
            return
        column, row = x // self.across, y // self.down
        bit = 1 << (y % 2) if self.ascii_only else DOTS[x % 2][y % 4]
        self._bits[row][column] |= bit
        self._styles[row][column] = style

    def span(self, x: int, top: int, bottom: int, style: Style) -> None:
        """Set the dots of a column from one row to another."""
        for y in range(min(top, bottom), max(top, bottom) + 1):
            self.dot(x, y, style)

    def line(self, x0: int, y0: int, x1: int, y1: int, style: Style, dash: int = 0) -> None:
        """Join two dots, each column with the rows between it and the next."""
        steps = max(1, x1 - x0)
        before = y0
        for i in range(steps + 1):
            y = round(y0 + (y1 - y0) * i / steps)
            if not dash or (x0 + i) % dash:
                self.span(x0 + i, before + (1 if y > before else -1 if y < before else 0), y, style)
            before = y

    def mark(self, column: int, row: int, char: str, style: Style) -> None:
        """Put a character over a cell."""
        if 0 <= column < self.width and 0 <= row < self.height:
            self._marks[column, row] = (char, style)

    def empty(self, column: int, row: int) -> bool:
        """Whether nothing was drawn into a cell."""
        return not self._bits[row][column]

    def rows(self) -> list[Text]:
        """The picture, a text a row."""
        found: list[Text] = []
        for y in range(self.height):
            text = Text(no_wrap=True, end="")
            for x in range(self.width):
                if (x, y) in self._marks:
                    text.append(*self._marks[x, y])
                    continue
                bits = self._bits[y][x]
                char = ASCII_CELLS[bits] if self.ascii_only else chr(0x2800 + bits) if bits else " "
                text.append(char, self._styles[y][x])
            found.append(text)
        return found


def nice_ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers between two values, about so many."""
    if not high > low or count < 1:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    size = next((m * power for m in (1, 2, 5, 10) if m * power >= raw), 10 * power)
    first = math.ceil(low / size - 1e-9) * size
    found: list[float] = []
    while first <= high + size * 1e-9:
        found.append(0.0 if abs(first) < size * 1e-9 else first)
        first += size
    return found


def log_ticks(low: float, high: float) -> list[float]:
    """Logarithms of 1, 2 and 5 times powers of ten between two logarithms; of powers alone where there are many."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    steps = (1, 2, 5) if high - low < 4 else (1,)
    found = [math.log10(m) + p for p in powers for m in steps if low <= math.log10(m) + p <= high]
    if len(found) < 3:  # less than a decade: round numbers say more
        found = [math.log10(t) for t in nice_ticks(10**low, 10**high, 4) if t > 0]
    return found


def tick_label(value: float) -> str:
    """A round number in few columns."""
    if value and not 1e-3 <= abs(value) < 1e4:
        return number(float(f"{value:.3g}")) if abs(value) >= 1 else f"{value:.0e}".replace("e-0", "e-")
    return f"{value:.4g}"


@dataclass(frozen=True)
class Axes:
    """What part of the plane is shown.

    Attributes:
        start, end: steps.
        low, high: values; their logarithms where `log` is set.
        log: whether y is logarithmic.
    """

    start: float
    end: float
    low: float
    high: float
    log: bool

    def height_of(self, value: float) -> float:
        """Where a value is between low (0) and high (1)."""
        told = math.log10(value) if self.log else value
        return (told - self.low) / (self.high - self.low)


def axes_of(curves: Sequence[Curve], start: float, end: float, log: bool) -> Axes | None:
    """The axes that show all finite values of a part of the steps; None where there is none.

    A logarithmic axis leaves out what is not above 0; where nothing is, the axis is linear.
    """
    values: list[float] = []
    for curve in curves:
        part = curve.values[bisect_left(curve.steps, start) : bisect_right(curve.steps, end)]
        values += [v for v in part if math.isfinite(v)]
    if not values:
        return None
    if log and any(v > 0 for v in values):
        values = [math.log10(v) for v in values if v > 0]
    else:
        log = False
    low, high = min(values), max(values)
    flat = high - low <= max(abs(low), abs(high)) * 1e-6  # no more than rounding
    pad = max(abs(high) * 0.05, 1e-9) if flat else (high - low) * 0.04
    return Axes(start, end, low - pad, high + pad, log)


def _plot(canvas: Canvas, curve: Curve, axes: Axes, bad: Style) -> None:
    """Draw one curve."""
    highest = canvas.dots_high - 1

    def y(value: float) -> int:
        return round((1 - axes.height_of(value)) * highest)

    before: tuple[int, int] | None = None
    for c in columns(curve.steps, curve.values, axes.start, axes.end, canvas.dots_wide):
        if c.broken:
            canvas.mark(c.at // canvas.across, 0, "×" if not canvas.ascii_only else "x", bad)
        if c.low is None or c.high is None or c.first is None or c.last is None:
            before = None
            continue
        low, high, first, last = (
            v if not axes.log or v > 0 else 10**axes.low for v in (c.low, c.high, c.first, c.last)
        )
        if before is not None:
            canvas.line(*before, c.at, y(first), curve.style, curve.dash)
        if not curve.dash or c.at % curve.dash:
            canvas.span(c.at, y(high), y(low), curve.style)
        before = (c.at, y(last))


def draw(
    curves: Sequence[Curve],
    width: int,
    height: int,
    start: float,
    end: float,
    log: bool,
    dim: Style,
    bad: Style,
    cross: float | None = None,
    ascii_only: bool = False,
) -> list[Text]:
    """Curves with axes, a text a row.

    Args:
        curves: later ones lie over earlier ones.
        width, height: of all of it, in cells.
        start, end: the steps that are shown.
        log: whether y is logarithmic.
        dim, bad: styles of the axes and of the marks for values that are no numbers.
        cross: a step with a vertical line.
        ascii_only: use ASCII alone.
    """
    axes = axes_of(curves, start, end, log)
    if axes is None or width < 12 or height < 3:
        rows = [Text(" " * width, end="") for _ in range(height)]
        rows[height // 2] = Text("no values yet".center(width)[:width], dim, end="")
        return rows
    high = height - 1
    labels: dict[int, str] = {}
    for tick in log_ticks(axes.low, axes.high) if axes.log else nice_ticks(axes.low, axes.high, max(1, high // 2)):
        row = round((1 - (tick - axes.low) / (axes.high - axes.low)) * (high - 1))
        if 0 <= row < high and all(abs(row - r) > 1 for r in labels):
            labels[row] = tick_label(10**tick if axes.log else tick)
    margin = min(9, max((len(label) for label in labels.values()), default=1))
    canvas = Canvas(max(4, width - margin - 1), high, ascii_only)
    for curve in curves:
        _plot(canvas, curve, axes, bad)
    if cross is not None and axes.start <= cross <= axes.end:
        share = (cross - axes.start) / max(axes.end - axes.start, 1e-9)
        column = min(canvas.width - 1, int(share * (canvas.dots_wide - 1) + 0.5) // canvas.across)
        for row in range(high):
            if canvas.empty(column, row):
                canvas.mark(column, row, "|" if ascii_only else "│", dim)
    found: list[Text] = []
    for row, text in enumerate(canvas.rows()):
        label = labels.get(row, "")
        line = Text(label[:margin].rjust(margin), dim, no_wrap=True, end="")
        line.append(("|" if ascii_only else "┤" if label else "│"), dim)
        found.append(line.append_text(text))
    found.append(_steps(axes, margin, canvas.width, dim))
    return found


def _steps(axes: Axes, margin: int, width: int, dim: Style) -> Text:
    """The line of steps below a chart."""
    first, last = f"{round(axes.start):,}", f"{round(axes.end):,}"
    middle = f"{round((axes.start + axes.end) / 2):,}"
    line = list(" " * width)
    line[: len(first)] = first[:width]
    if len(first) + len(last) + 2 <= width:
        line[width - len(last) :] = last
    at = width // 2 - len(middle) // 2
    if at > len(first) + 2 and at + len(middle) + 2 < width - len(last):
        line[at : at + len(middle)] = middle
    return Text(" " * (margin + 1) + "".join(line)[:width], dim, no_wrap=True, end="")
