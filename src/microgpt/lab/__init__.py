"""The browser lab: `microgpt lab`, or `uvicorn microgpt.lab:app`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from microgpt.lab.api import make_app
    from microgpt.web.security import Security, secured

    made = globals()["app"] = secured(make_app(), Security())
    return made
