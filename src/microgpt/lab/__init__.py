"""The browser lab: `microgpt lab`, or `uvicorn microgpt.lab:app`."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(name)
    from microgpt.lab.api import make_app
    from microgpt.lab.replay import LIMIT
    from microgpt.web.security import Security, secured

    paths = ("/", "/api/health", "/favicon.ico", "/static/")
    settings = Security(body_limits={"/api/trace": LIMIT}, open_paths=paths)
    made = globals()["app"] = secured(make_app(), settings)
    return made
