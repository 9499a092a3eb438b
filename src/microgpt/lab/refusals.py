"""What a refused request of the lab is told, always in one line and without its own input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microgpt.errors import MicrogptError


class Refusal(Exception):
    """Raised wherever a request cannot be granted.

    Args:
        status: the HTTP status.
        detail: what is wrong and what to do.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


def said(errors: Sequence[Any]) -> str:
    """What pydantic found, at most five mistakes; names of fields, never their values."""
    found: list[str] = []
    for error in errors[:5]:
        place = ".".join(str(part)[:64] for part in error["loc"] if part != "body")
        found.append(f"{place}: {error['msg']}" if place else str(error["msg"]))
    return printable("; ".join(found))


def printable(text: str) -> str:
    """A text as JSON and terminals can have it."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean.encode("utf-8", "replace").decode()[:1000]


def told(error: BaseException) -> str:
    """What a page is told of a fault: what a user can mend in words, of everything else only the kind."""
    return (
        printable(str(error)) if isinstance(error, MicrogptError) else f"the session failed: {type(error).__name__}"
    )
