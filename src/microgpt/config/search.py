"""Where config files are: a user's own ./conf first, then those that ship with the package."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

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


def chosen_options(stage: str, experiment: str = "") -> dict[str, str]:
    """The option of each group that a stage takes, read from its defaults and from what an experiment overrides."""
    folders = config_folders()
    found = _defaults(stage, folders)
    found.pop("experiment", None)
    return found | (_defaults(f"experiment/{experiment}", folders) if experiment else {})


def _defaults(name: str, folders: list[Path], depth: int = 0) -> dict[str, str]:
    """Group to option in a YAML file's list of defaults, with those of the files that it builds on."""
    import yaml

    path = next((p for folder in folders if (p := folder / f"{name}.yaml").is_file()), None)
    if path is None or depth > 8:
        return {}
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return {}  # composing says what is wrong with it
    found: dict[str, str] = {}
    for entry in content.get("defaults", []) if isinstance(content, dict) else []:
        if isinstance(entry, str) and entry != "_self_":
            found |= _defaults(f"{Path(name).parent}/{entry}", folders, depth + 1) if "/" in name else {}
        elif isinstance(entry, dict):
            for group, option in cast("Mapping[str, Any]", entry).items():
                found[str(group).removeprefix("override").strip().lstrip("/")] = "" if option is None else str(option)
    return found


def option_help(group: str, option: str) -> str:
    """What an option is: the comments at the head of its YAML file, on one line."""
    path = next((p for folder in config_folders() if (p := folder / group / f"{option}.yaml").is_file()), None)
    if path is None:
        return ""
    found: list[str] = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        if not line.startswith("#"):
            break
        if "@package" not in line:
            found.append(line.lstrip("# ").strip())
    return " ".join(found)
