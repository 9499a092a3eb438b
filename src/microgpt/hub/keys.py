"""Every key of the hub, once: bindings, hints and the help are made from this map."""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding, BindingType

TABS = ("train", "monitor", "logs", "runs", "models", "chat")


@dataclass(frozen=True)
class Key:
    """A key, or several that do the same.

    Attributes:
        names: as Textual calls them, separated by commas.
        action: what the pane or app does.
        label: as a person calls them.
        what: what it does, in words.
        hint: a word for the line at the bottom; nothing keeps it out of there.
    """

    names: str
    action: str
    label: str
    what: str
    hint: str = ""


EVERYWHERE = (
    Key("tab,l", "next_tab", "tab l", "next tab", ""),
    Key("shift+tab,h", "previous_tab", "shift+tab h", "previous tab", ""),
    Key("f1", "show_tab('train')", "F1-F6", "one tab directly", ""),
    *(Key(f"f{i}", f"show_tab('{name}')", "", "", "") for i, name in enumerate(TABS[1:], 2)),
    Key("s", "start", "s", "start a run with the settings of the Train tab", "start"),
    Key("x", "stop", "x", "stop the run that is watched; it saves first", "stop"),
    Key("r", "refresh", "r", "read everything again", ""),
    Key("t", "next_theme", "t", "next theme: dark, light, colour-blind safe, no colour", ""),
    Key("ctrl+p", "command_palette", "ctrl+p", "command palette", ""),
    Key("question_mark", "help", "?", "this help", "help"),
    Key("q", "quit", "q", "leave; runs go on", "quit"),
)

LISTS = (
    Key("down,j", "move(1)", "j down", "next row"),
    Key("up,k", "move(-1)", "k up", "previous row"),
    Key("pagedown", "page(1)", "pgdown", "a page down"),
    Key("pageup", "page(-1)", "pgup", "a page up"),
    Key("home", "first", "home", "first row"),
    Key("end", "last", "end", "last row"),
)

BY_TAB: dict[str, tuple[Key, ...]] = {
    "train": (
        Key("e", "edit", "e", "edit the field; values with commas make a sweep", "edit"),
        Key("enter", "choose", "enter", "choose from a list where there is one, else edit"),
        Key("space", "cycle", "space", "next choice of the field", "next"),
        Key("f", "dataset", "f", "choose a data set, look into it, check it", "data"),
        Key("1", "preset('fast')", "1", "preset fast"),
        Key("2", "preset('coherent-fast')", "2", "preset coherent-fast"),
        Key("3", "preset('coherent-max')", "3", "preset coherent-max"),
        Key("p", "experiment", "p", "choose an experiment", "preset"),
        Key("backspace,delete", "reset_field", "backspace", "take the field's change back"),
        Key("U", "reset_all", "U", "take every change back"),
        Key("c", "only_changed", "c", "show only what was changed, or all"),
        Key("slash", "search", "/", "find a field by its name", "find"),
        Key("y", "copy", "y", "copy the command", "copy"),
    ),
    "monitor": (
        Key("left", "category(-1)", "left", "previous category; in focus: crosshair left"),
        Key("right", "category(1)", "right", "next category; in focus: crosshair right"),
        Key("up,k", "metric(-1)", "up k", "previous metric"),
        Key("down,j", "metric(1)", "down j", "next metric"),
        Key("enter", "focus_chart", "enter", "one metric alone, large", "focus"),
        Key("escape", "unfocus", "esc", "back to all metrics, crosshair off"),
        Key("g", "log_scale", "g", "logarithmic y axis", "log"),
        Key("m", "smooth", "m", "smoothing: off, 0.6, 0.9, 0.97", "smooth"),
        Key("plus,equals_sign", "zoom(1)", "+", "zoom in around the crosshair", "zoom"),
        Key("minus", "zoom(-1)", "-", "zoom out"),
        Key("0", "zoom(0)", "0", "all steps"),
        Key("left_square_bracket", "cross(-1)", "[", "crosshair left"),
        Key("right_square_bracket", "cross(1)", "]", "crosshair right"),
        Key("v", "panel", "v", "beside the charts: explanation, system, samples", "panel"),
        Key("p", "replay", "p", "replay the run, or end the replay", "replay"),
        Key("space", "pause", "space", "replay: pause or go on"),
        Key("comma", "speed(-1)", ",", "replay: slower"),
        Key("full_stop", "speed(1)", ".", "replay: faster"),
    ),
    "logs": (
        Key("slash", "search", "/", "search", "search"),
        Key("n", "match(1)", "n", "next match"),
        Key("N", "match(-1)", "N", "previous match"),
        Key("ampersand", "filter", "&", "show only lines with a text; ! before it hides them", "filter"),
        Key("f", "follow", "f", "follow the end, or stay", "follow"),
        Key("o", "source", "o", "train.log, or what the process printed", "source"),
        Key("y", "copy", "y", "copy the lines that are shown", "copy"),
        Key("c", "clear", "c", "clear what is shown", "clear"),
    ),
    "runs": (
        Key("enter", "open", "enter", "watch the run in Monitor", "watch"),
        Key("space", "mark", "space", "mark: charts lay marked runs over each other", "mark"),
        Key("o", "sort", "o", "sort by the next column", "sort"),
        Key("O", "reverse", "O", "turn the order round"),
        Key("slash", "filter", "/", "filter by an expression, such as val_loss < 2 and status = FINISHED", "filter"),
        Key("c", "compare", "c", "compare the marked runs: differences only", "compare"),
        Key("d", "delete", "d", "delete the run", "delete"),
        Key("u", "undo", "u", "undo the last deletion"),
        Key("R", "resume", "R", "go on with the run", "resume"),
        Key("F", "from_run", "F", "train it again from its record"),
        Key("E", "evaluate", "E", "evaluate"),
        Key("X", "export", "X", "export"),
        Key("L", "load", "L", "load its settings into Train"),
        Key("y", "copy", "y", "copy the path of the run folder"),
        Key("w", "folder", "w", "look into the run folder"),
    ),
    "models": (
        Key("enter", "talk('a')", "enter", "talk to it", "talk"),
        Key("b", "talk('b')", "b", "talk to it beside the first one (A/B)", "A/B"),
        Key("i", "info", "i", "everything that is known of it", "info"),
        Key("X", "export", "X", "export", "export"),
        Key("a", "alias", "a", "register it and give it an alias", "alias"),
        Key("y", "copy", "y", "copy its path", "copy"),
        Key("slash", "filter", "/", "show only names with a text", "filter"),
    ),
    "chat": (
        Key("enter,e", "type", "enter", "type; enter again sends", "type"),
        Key("escape", "leave", "esc", "leave the input; stop a reply", "stop"),
        Key("p", "path('a')", "p", "checkpoint by its path", "path"),
        Key("L", "latest", "L", "latest checkpoint", "latest"),
        Key("b", "path('b')", "b", "second checkpoint for A/B; empty ends it", "A/B"),
        Key("left_square_bracket", "set('temperature', -0.05)", "[", "temperature down"),
        Key("right_square_bracket", "set('temperature', 0.05)", "]", "temperature up"),
        Key("minus", "set('max_new_tokens', -10)", "-", "fewer tokens"),
        Key("equals_sign", "set('max_new_tokens', 10)", "=", "more tokens"),
        Key("comma", "set('top_k', -1)", ",", "top-k down; 0 keeps all"),
        Key("full_stop", "set('top_k', 1)", ".", "top-k up"),
        Key("less_than_sign", "set('top_p', -0.01)", "<", "top-p down"),
        Key("greater_than_sign", "set('top_p', 0.01)", ">", "top-p up"),
        Key("semicolon", "set('repetition_penalty', -0.05)", ";", "repetition penalty down"),
        Key("apostrophe", "set('repetition_penalty', 0.05)", "'", "repetition penalty up"),
        Key("n", "set('min_new_tokens', 5)", "n", "more tokens before the end may come"),
        Key("N", "set('min_new_tokens', -5)", "N", "fewer"),
        Key("w", "set('repeat_last_n', 16)", "w", "penalty looks further back"),
        Key("W", "set('repeat_last_n', -16)", "W", "less far"),
        Key("v", "probabilities", "v", "probability of each token", "odds"),
        Key("left", "token(-1)", "left", "probabilities: previous token"),
        Key("right", "token(1)", "right", "probabilities: next token"),
        Key("g", "again", "g", "another reply to the last message", "again"),
        Key("c", "clear", "c", "forget the conversation", "clear"),
        Key("y", "copy", "y", "copy the last reply", "copy"),
        Key("up,k", "scroll_log(-1)", "up k", "scroll up"),
        Key("down,j", "scroll_log(1)", "down j", "scroll down"),
    ),
}


def bindings(keys: tuple[Key, ...]) -> list[BindingType]:
    """Textual's bindings of some keys."""
    return [Binding(key.names, key.action, key.what, show=False) for key in keys]


def hints(tab: str) -> list[tuple[str, str, str]]:
    """(label, word, action) of the keys that the bottom line of a tab shows."""
    own = [(key.label.split()[0], key.hint, f"pane_{tab}.{key.action}") for key in BY_TAB[tab] if key.hint]
    return own + [(key.label.split()[0], key.hint, f"app.{key.action}") for key in EVERYWHERE if key.hint]
