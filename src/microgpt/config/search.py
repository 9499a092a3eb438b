"""Where config files are: a user's own ./conf first, then those that ship with the package."""

from __future__ import annotations

from pathlib import Path

from microgpt.files import shipped


def shipped_conf() -> Path:
    """The conf folder that ships."""
    return shipped("conf")


def user_conf() -> Path | None:
    """The current folder's own conf, unless it is the shipped one (a checkout's root)."""
    own = Path.cwd() / "conf"
    return own if own.is_dir() and own.resolve() != shipped_conf().resolve() else None


def config_folders() -> list[Path]:
    """The folders that are searched, first match wins."""
    own = user_conf()
    return [own, shipped_conf()] if own else [shipped_conf()]


def options(group: str, folders: list[Path]) -> list[str]:
    """The choices of a config group: the YAML files in its folders, without those that only others build on (_x)."""
    found = {path.stem for folder in folders for path in (folder / group).glob("*.yaml") if path.stem[0] != "_"}
    return sorted(found)
