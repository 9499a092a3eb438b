"""Small GPTs, trained, looked into, talked to, served and exported.

As a library: `microgpt.load(folder).generate("Once")`, `.chat("Hello")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from microgpt.inference.load import Model, load

__all__ = ["Model", "load"]


def __getattr__(name: str) -> Any:
    """`load` and `Model` are imported when they are first used: importing the package costs nothing."""
    if name in __all__:
        from microgpt.inference import load

        return getattr(load, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
