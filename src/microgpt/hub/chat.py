"""The Chat tab: one model, or two side by side, and what each token's probability was."""

from __future__ import annotations

from functools import partial

from rich.style import Style
from rich.text import Text
from textual.app import ComposeResult
from textual.color import Color
from textual.containers import Horizontal, VerticalScroll
from textual.widgets import Input, Static

from microgpt.errors import visible
from microgpt.hub.dialogs import Ask
from microgpt.hub.frame import shortened
from microgpt.hub.ink import Ink
from microgpt.hub.keys import BY_TAB, bindings
from microgpt.hub.pane import Pane
from microgpt.hub.panels import bar
from microgpt.hub.talker import SAMPLING, Said, Talker, moved
from microgpt.runs.find import all_runs

FRAME_S = 0.1
SHORT = {
    "temperature": "temp", "max_new_tokens": "max", "top_k": "top-k", "top_p": "top-p",
    "repetition_penalty": "rep", "min_new_tokens": "min", "repeat_last_n": "last",
}  # fmt: skip


class ChatPane(Pane):
    """Settings above, one or two conversations, the input below."""

    BINDINGS = bindings(BY_TAB["chat"])
    PARTS = ("settings", "text-a", "text-b", "odds", "say")
    DEFAULT_CSS = """
    ChatPane #settings { height: 1; background: $surface; padding: 0 1; }
    ChatPane #sides { height: 1fr; }
    ChatPane .side { width: 1fr; height: 1fr; padding: 0 1; scrollbar-size: 1 1; }
    ChatPane #side-b { display: none; border-left: solid $panel; }
    ChatPane .side Static { width: 1fr; height: auto; }
    ChatPane #odds { height: 7; border-top: solid $panel; padding: 0 1; display: none; }
    ChatPane #say { height: 1; border: none; padding: 0 1; background: $panel; }
    """

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self.sides = {"a": Talker()}
        self.sampling = SAMPLING
        self.odds = False
        self.token = -1
        self._asked = False

    def compose(self) -> ComposeResult:
        yield Static(id="settings", classes="line")
        with Horizontal(id="sides"):
            for name in ("a", "b"):
                with VerticalScroll(id=f"side-{name}", classes="side", can_focus=False):
                    yield Static(id=f"text-{name}")
        yield Static(id="odds")
        yield Input(placeholder="enter: type, enter: send, esc: leave", id="say", compact=True)

    def on_mount(self) -> None:
        self.set_interval(FRAME_S, self._frame)
        self.call_after_refresh(self._first)

    def _first(self) -> None:
        """The latest model, unless another was asked for."""
        if not self._asked:
            self.action_latest()

    def restyle(self) -> None:
        super().restyle()
        self.tell()

    def leaving(self) -> None:
        """The hub is left: replies end."""
        for side in self.sides.values():
            side.stop()

    def _frame(self) -> None:
        if any(side.busy for side in self.sides.values()) and self.display:
            self.tell()

    # --- models -----------------------------------------------------------------------------------------------

    def load(self, reference: str, side: str) -> None:
        """Load a model on a side."""
        self._asked = True
        talker = self.sides.setdefault(side, Talker())
        if talker.busy:
            self.notify("wait for it, or stop it with esc", timeout=3)
            return
        talker.busy = True
        talker.name = "loading ..."
        self._run(talker, partial(talker.load, reference))
        self.query_one("#side-b").display = "b" in self.sides
        self.tell()

    def _run(self, talker: Talker, work: partial[None]) -> None:
        def whole() -> None:
            work()
            self.app.call_from_thread(self._done, talker)

        self.run_worker(whole, thread=True, group=f"talker{id(talker)}", exit_on_error=False)

    def _done(self, talker: Talker) -> None:
        if talker.wrong:
            self.notify(talker.wrong, severity="error", markup=False, timeout=8)
            if talker.model is None:
                talker.name = ""
        self.tell(end=True)

    def action_latest(self) -> None:
        """The latest checkpoint: of the watched run, else of the newest that has one."""
        run = self.hub.watched
        paths = [run.path] if run is not None else []
        paths += [r.path for r in reversed(all_runs(self.hub.outputs))]
        for path in paths:
            pointer = path / "checkpoints" / "latest"
            if pointer.exists():
                self.load(str(path / "checkpoints" / pointer.read_text(encoding="utf-8").strip()), "a")
                return
        self.tell()

    def action_path(self, side: str) -> None:
        """Ask for a model."""

        def take(text: str | None) -> None:
            if text is None:
                return
            if text.strip():
                self.load(text.strip(), side)
            elif side == "b":
                self.sides.pop("b", None)
                self.query_one("#side-b").display = False
                self.tell()

        note = "a run, checkpoint or model folder, latest, best or models:/NAME@ALIAS"
        self.app.push_screen(Ask("checkpoint" if side == "a" else "second checkpoint", note=note), take)

    # --- talking ----------------------------------------------------------------------------------------------

    def action_type(self) -> None:
        """Type a message."""
        self.query_one("#say", Input).focus()

    def action_leave(self) -> None:
        """Leave the input, or stop a reply."""
        if self.query_one("#say", Input).has_focus:
            self.focus()
            return
        for side in self.sides.values():
            side.stop()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send."""
        if any(side.busy for side in self.sides.values()):
            self.notify("wait for the reply, or stop it with esc", timeout=3)
            return
        ready = [side for side in self.sides.values() if side.model is not None]
        if not ready:
            self.notify("there is no model: p names one, L takes the latest", severity="warning", timeout=4)
            return
        if not event.value.strip() and any(side.chats for side in ready):
            return
        event.input.value = ""
        self.token = -1
        for side in ready:
            side.turns.append(("user", event.value if not side.chats else event.value.strip()))
            self._answer(side)

    def _answer(self, side: Talker) -> None:
        side.busy = True
        self._run(side, partial(side.answer, self.sampling))
        self.tell(end=True)

    def action_again(self) -> None:
        """Another reply to the last message."""
        if any(side.busy for side in self.sides.values()):
            return
        self.token = -1
        for side in self.sides.values():
            if side.take_back():
                self._answer(side)

    def action_clear(self) -> None:
        """Forget the conversation."""
        for side in self.sides.values():
            if not side.busy:
                side.turns, side.reply = [], None
        self.tell()

    def action_set(self, name: str, by: float) -> None:
        """Change a sampling setting."""
        self.sampling = moved(self.sampling, name, by)
        self.tell()

    def action_probabilities(self) -> None:
        """Show or hide each token's probability."""
        self.odds = not self.odds
        self.query_one("#odds").display = self.odds
        self.tell(end=True)

    def action_token(self, by: int) -> None:
        """Look at the next or previous token."""
        count = len(self.sides["a"].tokens())
        if count:
            now = self.token if self.token >= 0 else (count if by < 0 else -1)
            self.token = max(0, min(count - 1, now + by))
            self.tell()

    def action_copy(self) -> None:
        """Copy the last reply."""
        reply = self.sides["a"].reply
        if reply is not None:
            self.hub.copy(reply.text, "the reply")

    def action_scroll_log(self, by: int) -> None:
        """Scroll the conversation."""
        for name in self.sides:
            self.query_one(f"#side-{name}").scroll_relative(y=by, animate=False)

    # --- what is shown ----------------------------------------------------------------------------------------

    def tell(self, end: bool = False) -> None:
        """Draw again, at the end where something is being written."""
        if not self.whole:
            return
        ink = self.hub.ink
        self.query_one("#settings", Static).update(self._settings())
        for name, side in self.sides.items():
            self.query_one(f"#text-{name}", Static).update(self._conversation(side))
            if end or side.busy:
                self.query_one(f"#side-{name}", VerticalScroll).scroll_end(animate=False)
        if self.odds:
            self.query_one("#odds", Static).update(self._odds(ink))

    def _settings(self) -> Text:
        ink, text = self.hub.ink, Text(no_wrap=True, end="")
        for name, short in SHORT.items():
            text.append(f"{short} ", ink.dim)
            text.append(f"{getattr(self.sampling, name):g}  ", ink.text)
        text.truncate(max(1, self.size.width - 2), overflow="ellipsis")
        return text

    def _conversation(self, side: Talker) -> Text:
        ink, text = self.hub.ink, Text()
        text.append(shortened(side.name or "no model: p names one, L takes the latest", 70), ink.head)
        if side.model is not None and not side.chats:
            text.append("\na model of plain text: it goes on from what you type, or begins anew", ink.dim)
        for i, (role, said) in enumerate(side.turns):
            text.append("\n\nyou " if role == "user" else "\nbot ", ink.accent if role == "user" else ink.good)
            last = i == len(side.turns) - 1
            if role == "assistant" and last and self.odds:
                text.append_text(self._coloured(side, ink))
            else:
                text.append(visible(said), ink.text)
        if side.busy and side.reply is not None and side.turns and side.turns[-1][0] == "user":
            text.append("\nbot ", ink.good)
            text.append(visible(side.reply.text), ink.text)
            text.append("█" if not ink.plain else "_", ink.dim)
        reply = side.reply
        if reply is not None and not side.busy and side.turns:
            notes = [f"{reply.tokens} tokens"]
            notes += [{"length": "cut at max", "stopped": "stopped"}.get(reply.finish, "")]
            notes += [f"{reply.turns_dropped} old turns no longer fit"] if reply.turns_dropped else []
            text.append(f"\n{', '.join(n for n in notes if n)}", ink.dim)
        return text

    def _coloured(self, side: Talker, ink: Ink) -> Text:
        text = Text()
        for i, said in enumerate(side.tokens()):
            style = _likely(said.probability, ink)
            if i == self.token and side is self.sides["a"]:
                style = style + Style(reverse=True)
            text.append(visible(said.text), style)
        return text

    def _odds(self, ink: Ink) -> Text:
        tokens = self.sides["a"].tokens()
        if not tokens:
            return Text("say something: then left and right go from token to token", ink.dim)
        at = min(self.token if self.token >= 0 else len(tokens) - 1, len(tokens) - 1)
        said: Said = tokens[at]
        text = Text(no_wrap=True)
        text.append(f"token {at + 1} of {len(tokens)} ", ink.dim)
        text.append(repr(said.text), ink.head)
        text.append(f"  {said.probability:.1%}\n", _likely(said.probability, ink))
        for other, share in said.top:
            mark = "▸ " if other == said.text else "  "
            text.append(f"{mark}{shortened(repr(other), 16):<17}", ink.text)
            text.append(f"{bar(share, 24)} ", ink.accent)
            text.append(f"{share:.1%}\n", ink.dim)
        return text


def _likely(share: float, ink: Ink) -> Style:
    """From the colour of doubt to that of certainty; without colour, bold is doubtful."""
    if ink.plain or ink.good.color is None or ink.bad.color is None:
        return Style(bold=share < 0.5)
    low, high = Color.from_rich_color(ink.bad.color), Color.from_rich_color(ink.good.color)
    return Style(color=low.blend(high, share if share == share else 0.0).hex6.lower())
