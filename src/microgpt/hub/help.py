"""The help and the command palette, made from the key map."""

from __future__ import annotations

from rich.text import Text

from microgpt.hub.dialogs import Page
from microgpt.hub.ink import Ink
from microgpt.hub.keys import BY_TAB, EVERYWHERE, LISTS, TABS, Key


def _section(text: Text, title: str, keys: tuple[Key, ...], ink: Ink) -> None:
    text.append(f"{title}\n", ink.head)
    for key in keys:
        if key.label:
            text.append(f"  {key.label:<13} ", ink.accent)
            text.append(f"{key.what}\n", ink.text)
    text.append("\n")


def help_text(tab: str, ink: Ink) -> Text:
    """Every key: those of the tab that is shown first, then those that work everywhere, then the other tabs'."""
    text = Text()
    _section(text, tab.capitalize(), BY_TAB[tab], ink)
    _section(text, "Everywhere", EVERYWHERE, ink)
    _section(text, "In lists", LISTS, ink)
    for name in TABS:
        if name != tab:
            _section(text, name.capitalize(), BY_TAB[name], ink)
    text.append("The mouse works too: tabs, rows, charts (hover, wheel) and the words of the last line.", ink.dim)
    return text


def help_page(tab: str, ink: Ink) -> Page:
    """The help as a page over the tabs."""
    return Page("keys", help_text(tab, ink))


def commands(tab: str) -> list[tuple[str, str, str]]:
    """(title, help, action) of everything that a key does here."""
    found = [(f"Tab: {name.capitalize()}", "show it", f"app.show_tab('{name}')") for name in TABS]
    for key in BY_TAB[tab]:
        found.append((f"{tab.capitalize()}: {key.what}", f"key {key.label}", f"pane_{tab}.{key.action}"))
    for key in EVERYWHERE:
        if key.label and key.action != "command_palette" and not key.action.startswith("show_tab"):
            found.append((key.what.capitalize(), f"key {key.label}", f"app.{key.action}"))
    return found
