"""Overrides and YAML are read for danger and for typing mistakes before Hydra is imported.

Hydra would build any object that a `_target_` names, OmegaConf takes a minute over a 200-byte alias bomb, and an
`oc.env` interpolation writes secrets into saved configs. None of that is part of this project's config, so it is
refused from the text alone.
"""

from __future__ import annotations

import re
import typing
from pathlib import Path

from microgpt.config.build import groups, nearest, refuse, settings, unknown_key
from microgpt.config.search import options
from microgpt.errors import UsageError

MAX_YAML_BYTES = 1_000_000
HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose")
HYDRA_PREFIXES = ("hydra.launcher.", "hydra.sweeper.")
HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")
FLAGS_REFUSED = ("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun")


def _danger(text: str) -> str:
    """Why a piece of config text is refused, or nothing."""
    if "_target_" in text:
        return "_target_ is refused: objects are chosen by name, never built from config"
    if re.search(r"\$\{\s*(oc\.)?env\s*:", text):
        return "environment variables are refused in config: they would be saved with the run"
    return ""


def split_arguments(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Command-line words as (overrides, flags with their values)."""
    overrides: list[str] = []
    flags: list[str] = []
    words = iter(arguments)
    for word in words:
        if word.partition("=")[0] in FLAGS_REFUSED:
            raise UsageError(f"{word.partition('=')[0]} is refused", "put your YAML into ./conf or use --config-dir")
        if word.startswith("-"):
            flags.append(word)
            if word in FLAGS_WITH_VALUE:
                flags.extend(part for part in [next(words, None)] if part is not None)
        else:
            overrides.append(word)
    return overrides, flags


def _check_override(word: str, cls: type, folders: list[Path]) -> str:
    """What is wrong with one `key=value`, or nothing."""
    danger = _danger(word)
    if danger:
        return f"{word[:60]}: {danger}"
    name, equals, value = word.partition("=")
    bare = name.lstrip("+~")
    if not equals and not name.startswith("~"):
        return f"{word!r} is not key=value" + nearest(word, [*settings(cls), *groups(cls)])
    key = bare.partition("@")[0]
    if key.startswith("hydra"):
        if key in HYDRA_KEYS or key in HYDRA_GROUPS or key.startswith(HYDRA_PREFIXES):
            return ""
        return f"{key}: of hydra's own keys only {', '.join((*HYDRA_KEYS, *HYDRA_GROUPS))} can be set"
    group_choices = options(key, folders) if key in (*groups(cls), "experiment", "sweep") else []
    if group_choices:
        if not re.fullmatch(r"[\w.,\- ]*", value) or value in ("", "null"):
            return ""  # a mapping or a sweep expression: Hydra parses it and build() checks what it gives
        for choice in value.split(","):
            if choice.strip() not in group_choices:
                near = nearest(choice, group_choices)
                return f"{key}={choice}: there is no such option{near}; {key} can be {', '.join(group_choices)}"
        return ""
    return "" if key in settings(cls) else unknown_key(cls, key)


def check_overrides(overrides: list[str], cls: type, folders: list[Path]) -> None:
    """Refuse dangerous and unknown overrides, all in one message.

    Raises:
        UsageError: naming each key with its nearest valid name.
    """
    refuse([problem for word in overrides if (problem := _check_override(word, cls, folders))])


def _check_yaml(path: Path) -> str:
    """What is wrong with one YAML file, or nothing. Its events are read, nothing is built from it."""
    import yaml  # a third of the start of `--help`: only for folders of the user's own

    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            return f"{path}: larger than {MAX_YAML_BYTES:,} bytes"
        text = path.read_text(encoding="utf-8")
        danger = _danger(text)
        if danger:
            return f"{path}: {danger}"
        for event in typing.cast("typing.Iterator[typing.Any]", yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                return f"{path}: YAML aliases (*{event.anchor}) are refused; write the value out"
            tag = getattr(event, "tag", None)
            if tag:
                return f"{path}: the YAML tag {tag} is refused"
            if isinstance(event, yaml.ScalarEvent) and _danger(str(event.value)):
                return f"{path}: {_danger(str(event.value))}"
    except UnicodeDecodeError as error:
        return f"{path}: not UTF-8 at byte {error.start}"
    except RecursionError:
        return f"{path}: nested too deeply"
    except yaml.YAMLError as error:
        return f"{path}: not YAML: {' '.join(str(error).split())[:200]}"
    return ""


def check_yaml_folder(folder: Path) -> None:
    """Refuse a folder of user YAML that holds tags, aliases, `_target_` or secrets.

    Raises:
        UsageError: naming each file and reason.
    """
    problems = [problem for path in sorted(folder.rglob("*.y*ml")) if (problem := _check_yaml(path))]
    if problems:
        raise UsageError("; ".join(problems[:5]), "correct the file")


def touched_keys(overrides: list[str], cls: type) -> tuple[set[str], bool]:
    """The keys that overrides name, and whether an experiment was chosen (which can set any key)."""
    keys: set[str] = set()
    experiment = False
    for word in overrides:
        key = word.partition("=")[0].lstrip("+~").partition("@")[0]
        experiment = experiment or key == "experiment"
        keys.update(k for k in settings(cls) if k == key or k.startswith(f"{key}."))
    return keys, experiment
