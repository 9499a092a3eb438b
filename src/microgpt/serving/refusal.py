"""A request that is not answered, and why."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """Raised anywhere in the answering of a request; the app makes the answer of it.

    Args:
        status: the HTTP status.
        message: what is wrong and how to mend it; nothing of the input, no path, no address.
        param: the field that is wrong.
        code: a short name for programs.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})


def later(status: int, message: str, code: str) -> Refusal:
    """A refusal of now: the same request may succeed in a moment."""
    return Refusal(status, message, code=code, headers={"retry-after": "1"})
