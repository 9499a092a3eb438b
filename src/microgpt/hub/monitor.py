"""The Monitor tab: charts of the watched run, and what they mean."""

from __future__ import annotations

from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.containers import Grid, Horizontal, VerticalScroll
from textual.widgets import Static

from microgpt.hub.chartview import ChartView, Look, extent
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.measures import categories
from microgpt.hub.pane import Pane
from microgpt.hub.panels import PANELS, about, explanation, legend, samples, warnings
from microgpt.hub.replay import Replay

WIDE = 110  # columns from where the panels stand at the right
CHART = 38  # columns that a chart wants
SMOOTHING = (0.0, 0.6, 0.9, 0.97)
FRAME_S = 0.1


class MonitorPane(Pane):
    """A grid of charts, one of them selected; enter shows it alone."""

    BINDINGS = bindings(BY_TAB["monitor"])
    PARTS = ("heads", "grid", "beside", "panel0", "panel1", "panel2", "replay")
    DEFAULT_CSS = """
    MonitorPane #heads { height: 1; }
    MonitorPane #halves { height: 1fr; }
    MonitorPane #charts { width: 1fr; height: 1fr; scrollbar-size: 1 1; }
    MonitorPane #grid { height: auto; min-height: 100%; grid-gutter: 0 1; }
    MonitorPane #beside { width: 46; border-left: solid $panel; padding: 0 1; scrollbar-size: 1 1; }
    MonitorPane #beside Static { width: 1fr; height: auto; margin-bottom: 1; }
    MonitorPane #replay { height: 1; display: none; }
    MonitorPane.-narrow #halves { layout: vertical; }
    MonitorPane.-narrow #beside {
        width: 1fr; height: 6; border-left: none; border-top: solid $panel;
    }
    MonitorPane.-low #beside { display: none; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.look = Look()
        self.category = "Core"
        self.index = 0
        self.alone = False
        self.panel = 0
        self.replay: Replay | None = None
        self._shown: tuple[str, ...] = ()

    def compose(self) -> ComposeResult:
        yield Static(id="heads", classes="line")
        with Horizontal(id="halves"):
            with VerticalScroll(id="charts", can_focus=False):
                yield Grid(id="grid")
            with VerticalScroll(id="beside", can_focus=False):
                yield Static(id="panel0")
                yield Static(id="panel1")
                yield Static(id="panel2")
        yield Static(id="replay", classes="line")

    async def on_mount(self) -> None:
        self.set_interval(FRAME_S, self._frame)
        await self.lay_out()

    # --- what is shown ----------------------------------------------------------------------------------------

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Categories with their metrics."""
        run = self.hub.watched
        return categories(run.series if run is not None else ())

    @property
    def keys(self) -> tuple[str, ...]:
        """The metrics of the category."""
        return self.groups().get(self.category, ())

    @property
    def key(self) -> str:
        """The selected metric."""
        keys = self.keys
        return keys[min(self.index, len(keys) - 1)] if keys else ""

    async def lay_out(self) -> None:
        """Put as many charts beside each other as there is room for."""
        if not self.whole:
            return
        width, height = self.size
        self.set_class(width < WIDE, "-narrow")
        self.set_class(height < 16, "-low")
        grid = self.query_one("#grid", Grid)
        wanted = (self.key,) if self.alone else self.keys
        if wanted != self._shown:
            self._shown = wanted
            await grid.remove_children()
            await grid.mount(*(ChartView(key, self.look) for key in wanted))
        room = width if width < WIDE else width - 46
        across = max(1, min(3, room // CHART, len(wanted)))
        if len(wanted) == 4 and across == 3:
            across = 2
        down = -(-len(wanted) // across)
        space = height - 1 - (0 if width >= WIDE or height < 16 else 6) - (1 if self.replay else 0)
        grid.styles.grid_size_columns = across
        grid.styles.grid_rows = str(max(5, space // max(1, down)))
        self.tick()

    def on_resize(self, event: events.Resize) -> None:
        """Lay the charts out again."""
        self.call_next(self.lay_out)

    def entered(self) -> None:
        self.focus()

    def restyle(self) -> None:
        super().restyle()
        self.tick()

    def tick(self) -> None:
        """Draw again."""
        if not self.whole:
            return
        run, ink = self.hub.watched, self.hub.ink
        keys = (self.key,) if self.alone else self.keys
        if keys != self._shown:
            self.call_next(self.lay_out)
            return
        for chart in self.query(ChartView):
            chart.selected = chart.key == self.key and not self.alone
            chart.refresh()
        self.query_one("#heads", Static).update(self._heads())
        blocks = [explanation(self.key, run, ink), about(run, ink), samples(run, ink)]
        warned = warnings(run, ink)
        if self.size.width >= WIDE:
            blocks[0] = Text("\n", end="").join([*([warned] if warned.plain else []), blocks[0]])
            for i, block in enumerate(blocks):
                static = self.query_one(f"#panel{i}", Static)
                static.display = True
                static.update(block)
            return
        first = blocks[self.panel] if not warned.plain else Text("", end="").join([warned, blocks[self.panel]])
        self.query_one("#panel0", Static).update(first)
        for i in (1, 2):
            self.query_one(f"#panel{i}", Static).display = False

    def _heads(self) -> Text:
        ink, width = self.hub.ink, self.size.width
        text = Text(no_wrap=True, end="")
        for name in self.groups():
            here = name == self.category
            short = name if here or width >= 60 else name[:3]
            text.append(f" {short} ", ink.head + ink.cursor if here else ink.dim)
        notes = [
            f"smooth {self.look.smoothing:g}" if self.look.smoothing else "raw",
            *(["log"] if self.look.log else []),
        ]
        notes += ["zoom"] if self.look.window else []
        told = " ".join(notes)
        runs = [w for w in self.hub.marked.values() if self.hub.watched is None or w.path != self.hub.watched.path]
        marks = legend([*([self.hub.watched] if self.hub.watched else []), *runs], ink) if runs else Text()
        room = width - text.cell_len - len(told) - 2
        if marks.plain and room > 8:
            marks.truncate(room, overflow="ellipsis")
            text.append(" ")
            text.append_text(marks)
        text.append(" " * max(1, width - text.cell_len - len(told) - 1))
        text.append(told, ink.dim)
        return text

    # --- keys -------------------------------------------------------------------------------------------------

    async def action_category(self, by: int) -> None:
        """Another category; alone, the crosshair moves instead."""
        if self.alone:
            self.action_cross(by)
            return
        names = list(self.groups())
        at = names.index(self.category) if self.category in names else 0
        self.category, self.index = names[(at + by) % len(names)], 0
        await self.lay_out()

    async def action_metric(self, by: int) -> None:
        """Another metric."""
        count = len(self.keys)
        if count:
            self.index = (min(self.index, count - 1) + by) % count
        await self.lay_out()
        for chart in self.query(ChartView):
            if chart.key == self.key:
                chart.scroll_visible(animate=False)

    async def action_focus_chart(self) -> None:
        """The selected metric alone."""
        self.alone = not self.alone
        await self.lay_out()

    async def action_unfocus(self) -> None:
        """All metrics, no crosshair."""
        self.alone, self.look.cross = False, None
        await self.lay_out()

    def action_log_scale(self) -> None:
        """Logarithmic or linear."""
        self.look.log = not self.look.log
        self.tick()

    def action_smooth(self) -> None:
        """The next smoothing."""
        at = SMOOTHING.index(self.look.smoothing)
        self.look.smoothing = SMOOTHING[(at + 1) % len(SMOOTHING)]
        self.tick()

    def action_cross(self, by: int) -> None:
        """Move the crosshair by a hundredth of what is shown."""
        start, end = self.look.window or extent(self.hub)
        now = self.look.cross if self.look.cross is not None else (end if by < 0 else start)
        self.look.cross = max(start, min(end, now + by * max(1.0, (end - start) / 100)))
        self.tick()

    def action_zoom(self, by: int) -> None:
        """Show half as much around the crosshair, twice as much, or all."""
        first, last = extent(self.hub)
        if by == 0:
            self.look.window = None
            self.tick()
            return
        start, end = self.look.window or (first, last)
        at = self.look.cross if self.look.cross is not None else (start + end) / 2
        factor = 0.5 if by > 0 else 2.0
        width = (end - start) * factor
        if width < 2 and by > 0:
            return
        share = (at - start) / max(end - start, 1e-9)
        start = max(float(first), at - share * width)
        end = min(float(last), start + width)
        self.look.window = None if end - start >= (last - first) * 0.999 else (start, end)
        self.tick()

    def action_panel(self) -> None:
        """The next of the panels below the charts."""
        self.panel = (self.panel + 1) % len(PANELS)
        self.tick()
        self.query_one("#beside").scroll_home(animate=False)

    def on_chart_view_picked(self, event: ChartView.Picked) -> None:
        """A click selects; one on the selected chart shows it alone."""
        again = event.key == self.key
        self.index = self.keys.index(event.key) if event.key in self.keys else self.index
        if again:
            self.alone = not self.alone
        self.call_next(self.lay_out)

    def on_chart_view_pointed(self, event: ChartView.Pointed) -> None:
        """The crosshair follows the mouse, the wheel zooms."""
        self.look.cross = event.step
        if event.zoom:
            self.action_zoom(event.zoom)
        else:
            self.tick()

    # --- replay -----------------------------------------------------------------------------------------------

    async def action_replay(self) -> None:
        """Begin or end a replay."""
        run = self.hub.watched
        if self.replay is not None:
            self._end_replay()
        elif run is not None and run.series:
            self.replay = Replay(run)
        else:
            self.notify("there is nothing to replay yet", timeout=3)
        self.query_one("#replay").display = self.replay is not None
        await self.lay_out()

    def _end_replay(self) -> None:
        if self.replay is not None:
            self.replay.end()
        self.replay = None
        self.query_one("#replay").display = False

    def action_pause(self) -> None:
        """Pause the replay, or let it go on."""
        if self.replay is not None:
            self.replay.playing = not self.replay.playing

    def action_speed(self, by: int) -> None:
        """Replay faster or slower."""
        if self.replay is not None:
            self.replay.faster(by)

    def _frame(self) -> None:
        if self.replay is None or not self.whole:
            return
        if self.replay.run is not self.hub.watched or self.replay.done:
            self._end_replay()
            self.call_next(self.lay_out)
            return
        self.replay.advance(FRAME_S)
        self.query_one("#replay", Static).update(Text(self.replay.line(self.size.width), self.hub.ink.accent))
        self.tick()
        self.hub.refresh_frame()
