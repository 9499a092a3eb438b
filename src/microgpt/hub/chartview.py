"""One metric as a chart: the watched run and those that are laid over it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text
from textual import events
from textual.message import Message
from textual.widget import Widget

from microgpt.hub.chart import Curve, draw
from microgpt.hub.measures import measure_of
from microgpt.hub.pane import hub_of
from microgpt.hub.series import Series, number, smoothed

if TYPE_CHECKING:
    from microgpt.hub.app import HubApp

AXIS = 9


@dataclass
class Look:
    """How charts are drawn; all of a tab share one.

    Attributes:
        log: logarithmic y.
        smoothing: share of the old in the running mean; 0 draws the values alone.
        window: steps that are shown; None shows all.
        cross: the step of the crosshair.
    """

    log: bool = False
    smoothing: float = 0.9
    window: tuple[float, float] | None = None
    cross: float | None = None


def extent(hub: HubApp) -> tuple[float, float]:
    """The first and last step of all runs that are shown."""
    shown = [w for w in (hub.watched, *hub.marked.values()) if w is not None]
    lasts = [s.steps[-1] for w in shown for s in w.series.values() if s.steps]
    firsts = [s.steps[0] for w in shown for s in w.series.values() if s.steps]
    end = max(lasts, default=1)
    if hub.watched is not None and hub.watched.limit is not None:
        end = max(end, hub.watched.max_steps)
    return min(firsts, default=0), max(end, 1)


class ChartView(Widget):
    """A chart with its title.

    Args:
        key: the metric.
        look: how it is drawn.
    """

    DEFAULT_CSS = "ChartView { width: 1fr; height: 1fr; min-height: 5; padding: 0 1 0 0; }"

    class Picked(Message):
        """A chart was clicked."""

        def __init__(self, key: str) -> None:
            self.key = key
            super().__init__()

    class Pointed(Message):
        """The mouse is over a step, or has turned its wheel there (zoom is -1 or 1)."""

        def __init__(self, step: float, zoom: int = 0) -> None:
            self.step, self.zoom = step, zoom
            super().__init__()

    def __init__(self, key: str, look: Look) -> None:
        super().__init__()
        self.key, self.look = key, look
        self.selected = False
        self._smooth: dict[tuple[int, int, float, int], list[float]] = {}

    def _mean(self, series: Series, count: int) -> list[float]:
        """The smoothed curve; kept until there is something new."""
        key = (id(series), series.version, self.look.smoothing, count)
        if key not in self._smooth:
            if len(self._smooth) > 16:
                self._smooth.clear()
            self._smooth[key] = smoothed(series.values[:count], self.look.smoothing)
        return self._smooth[key]

    def curves(self) -> list[Curve]:
        """What is drawn: each run's values, faint where a smoothed curve lies over them."""
        hub = hub_of(self)
        ink = hub.ink
        runs = [w for w in hub.marked.values() if hub.watched is None or w.path != hub.watched.path]
        found: list[Curve] = []
        means: list[Curve] = []
        shown = [hub.watched, *runs] if hub.watched is not None else runs
        for i, run in enumerate(shown):
            series = run.of(self.key)
            count = series.count(run.limit)
            if not count:
                continue
            style = ink.series[i % len(ink.series)]
            dash = 1 + i if ink.plain and i else 0
            smooth = self.look.smoothing > 0 and count > 30
            faint = _faint(style, ink.plain, self.background_colors[1].hex6) if smooth else style
            found.append(Curve(series.steps[:count], series.values[:count], faint, dash))
            if smooth:
                means.append(Curve(series.steps[:count], self._mean(series, count), style, dash))
        # means last: they lie over all raw values; the watched run's over the others'
        return [*reversed(found), *reversed(means)]

    def render(self) -> Text:
        hub, (width, height) = hub_of(self), self.content_size
        ink = hub.ink
        measure = measure_of(self.key)
        start, end = self.look.window or extent(hub)
        run = hub.watched
        facts = (run.of(self.key) if run else Series()).facts(run.limit if run else None)
        title = Text(no_wrap=True, end="")
        title.append(measure.title, ink.head + (ink.cursor if self.selected else Style()))
        title.append(f"  {number(facts.latest)}", ink.text)
        if facts.delta:
            title.append(f" {'▾' if facts.delta < 0 else '▴'}{number(abs(facts.delta))}", ink.dim)
        if self.look.cross is not None and run is not None and (near := run.of(self.key).at(self.look.cross)):
            title.append(f"  {near[0]:,}: {number(near[1])}", ink.accent)
        title.truncate(width, pad=True)
        rows = draw(
            self.curves(), width, max(1, height - 1), start, end, self.look.log, ink.dim, ink.bad, self.look.cross,
            hub.ascii_only,
        )  # fmt: skip
        return Text("\n", end="").join([title, *rows])

    def step_at(self, x: int) -> float:
        """The step under a column of the widget."""
        start, end = self.look.window or extent(hub_of(self))
        share = (x - AXIS // 2 - 2) / max(1, self.content_size.width - AXIS // 2 - 3)
        return start + max(0.0, min(1.0, share)) * (end - start)

    def on_click(self) -> None:
        self.post_message(self.Picked(self.key))

    def on_mouse_move(self, event: events.MouseMove) -> None:
        self.post_message(self.Pointed(self.step_at(event.x)))

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        self.post_message(self.Pointed(self.step_at(event.x), 1))

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        self.post_message(self.Pointed(self.step_at(event.x), -1))


def _faint(style: Style, plain: bool, background: str) -> Style:
    """A style near the background: for raw values under their mean."""
    from textual.color import Color

    if plain or style.color is None:
        return style
    return Style(color=Color.parse(background).blend(Color.from_rich_color(style.color), 0.42).hex6.lower())
