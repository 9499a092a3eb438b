"""What the six tabs have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, cast

from textual.containers import Vertical
from textual.dom import DOMNode

if TYPE_CHECKING:
    from microgpt.hub.app import HubApp


def hub_of(node: DOMNode) -> HubApp:
    """The app that a widget belongs to."""
    return cast("HubApp", node.app)


class Pane(Vertical, can_focus=True):
    """A tab. It has the keys of its name in keys.BY_TAB."""

    DEFAULT_CSS = """
    Pane { height: 1fr; width: 1fr; }
    Pane .line { height: 1; text-wrap: nowrap; text-overflow: ellipsis; }
    """

    #: ids of the widgets that drawing needs
    PARTS: ClassVar[tuple[str, ...]] = ()

    @property
    def whole(self) -> bool:
        """Whether all parts are there: they are not yet when a tab opens, and no longer when the hub closes."""
        return self.is_attached and all(self.query(f"#{part}") for part in self.PARTS)

    @property
    def hub(self) -> HubApp:
        """The app."""
        return hub_of(self)

    def entered(self) -> None:
        """The tab is shown: put the focus where keys go."""
        self.focus()

    def tick(self) -> None:
        """Twice a second while the tab is shown: look at the files again."""

    def restyle(self) -> None:
        """The theme or the width has changed."""
        self.refresh(layout=True)
