"""Overrides and YAML are read for danger and for typing mistakes before Hydra is imported.

Hydra would build any object that a `_target_` names, OmegaConf takes a minute over a 200-byte alias bomb, and an
`oc.env` interpolation writes secrets into saved configs. None of that is part of this project's config, so it is
refused from the text alone.
"""

from __future__ import annotations

import os
import re
import typing
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from microgpt.config.build import groups, nearest, refuse, settings, unknown_key, value_problem
from microgpt.config.search import options
from microgpt.errors import UsageError

MAX_YAML_BYTES = 1_000_000
HYDRA_KEYS = ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.verbose")
HYDRA_PREFIXES = ("hydra.launcher.",)
LAUNCHER = "hydra/launcher"
#: what `hydra/launcher=` can be, and the module of its own that it comes with
LAUNCHERS = {
    "basic": "",
    "joblib": "hydra_plugins.hydra_joblib_launcher",
    "submitit_local": "hydra_plugins.hydra_submitit_launcher",
    "submitit_slurm": "hydra_plugins.hydra_submitit_launcher",
    "ray": "ray",
}
FLAGS_WITH_VALUE = ("--config-dir", "-cd", "--cfg", "-c", "--package", "-p", "--info", "-i")
FLAGS = (
    *FLAGS_WITH_VALUE,
    "--multirun",
    "-m",
    "--run",
    "-r",
    "--resolve",
    "--hydra-help",
    "--shell-completion",
    "-sc",
)
FLAGS_REFUSED = ("--config-path", "-cp", "--config-name", "-cn", "--experimental-rerun")
MAX_DEPTH = 50


def _danger(text: str) -> str:
    """Why a piece of config text is refused, or nothing."""
    if "_target_" in text:
        return "_target_ is refused: objects are chosen by name, never built from config"
    # `${env:X}`, and a resolver whose name is itself put together: `${oc.${name}:X}`
    if re.search(r"\$\{\s*(oc\s*\.\s*)?env\s*:|\$\{[^:{}]*\$\{|\$\{\s*oc\s*\.\s*decode\b", text):
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
            flag, equals, value = word.partition("=")
            if flag not in FLAGS:  # argparse would take any abbreviation of a refused one
                raise UsageError(f"unknown flag {flag}{nearest(flag, FLAGS)}", "--help lists all keys and flags")
            if equals:
                flags += [flag, value]
                continue
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
    key, _, package = bare.partition("@")
    if package.partition(":")[2].startswith("hydra") or package.startswith("hydra"):
        return f"{bare}: nothing of ours can be put into hydra's own config"
    if key == LAUNCHER:
        return _launcher_problem(value, options(key, folders))
    if key.startswith("hydra"):
        if key in HYDRA_KEYS or key.startswith(HYDRA_PREFIXES):
            return ""
        if key.startswith(("hydra/sweeper", "hydra.sweeper")):
            return f"{key}: the sweeper is chosen by sweep=, and set by sweep.*"
        return f"{key}: of hydra's own keys only {', '.join((*HYDRA_KEYS, LAUNCHER))} can be set"
    group_choices = options(key, folders) if key in (*groups(cls), "experiment") else []
    if group_choices:
        if not re.fullmatch(r"[\w.,\- ]*", value) or value in ("", "null"):
            return ""  # a mapping or a sweep expression: Hydra parses it and build() checks what it gives
        for choice in value.split(","):
            if choice.strip() not in group_choices:
                near = nearest(choice, group_choices)
                return f"{key}={choice}: there is no such option{near}; {key} can be {', '.join(group_choices)}"
        return ""
    return "" if key in settings(cls) else unknown_key(cls, key)


def _launcher_problem(launcher: str, own: list[str]) -> str:
    known = [*LAUNCHERS, *own]
    if launcher not in known:
        near = nearest(launcher, known)
        return f"hydra/launcher={launcher}: there is no such launcher{near}; it can be {', '.join(known)}"
    module = LAUNCHERS.get(launcher)
    if module and find_spec(module) is None:
        return f"hydra/launcher={launcher} is not installed: pip install 'microgpt[sweep]'"
    return ""


def check_overrides(overrides: list[str], cls: type, folders: list[Path]) -> None:
    """Refuse dangerous and unknown overrides, all in one message.

    Raises:
        UsageError: naming each key with its nearest valid name.
    """
    problems = [problem for word in overrides if (problem := _check_override(word, cls, folders))]
    if problems:  # then build() is never reached: say here what it would say of plain values
        problems += [problem for word in overrides if (problem := _value_problem(word, cls))]
    refuse(problems)


def _value_problem(word: str, cls: type) -> str:
    key, _, value = word.lstrip("+").partition("=")
    item = settings(cls).get(key)
    if item is None or not re.fullmatch(r"[\w.+-]+", value) or not (item.choices or item.base in (int, float)):
        return ""
    plain: typing.Any = None if value == "null" else value
    if item.base in (int, float):
        with suppress(ValueError):
            plain = int(value) if re.fullmatch(r"[+-]?\d+", value) else float(value)
    return value_problem(item, plain)


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
        depth = 0
        for event in typing.cast("typing.Iterator[typing.Any]", yaml.parse(text, Loader=yaml.SafeLoader)):
            if isinstance(event, yaml.AliasEvent):
                return f"{path}: YAML aliases (*{event.anchor}) are refused; write the value out"
            depth += isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent))
            depth -= isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent))
            if depth > MAX_DEPTH:
                return f"{path}: nested too deeply"
            tag = getattr(event, "tag", None)
            if tag:
                return f"{path}: the YAML tag {tag} is refused"
            if isinstance(event, yaml.ScalarEvent) and _danger(str(event.value)):
                return f"{path}: {_danger(str(event.value))}"
        package = re.search(r"#\s*@package\s+(\S+)", text)
        if package and package[1].startswith("hydra") and "hydra" not in path.parts:
            return f"{path}: nothing of ours can be put into hydra's own config"
        content: typing.Any = yaml.safe_load(text)  # harmless by now: no tag, no alias, not deep
        own = typing.cast("dict[str, typing.Any]", content).get("hydra") if isinstance(content, dict) else None
        if own is not None:
            allowed = (
                ("run", "dir"),
                ("sweep", "dir"),
                ("sweep", "subdir"),
                ("launcher",),
                ("verbose",),
            )
            for first, value in own.items() if isinstance(own, dict) else [("", None)]:
                names = [(first, second) for second in value] if isinstance(value, dict) else [(first,)]
                if any(n[:1] not in allowed and n not in allowed for n in names or [(first,)]):
                    return f"{path}: of hydra's own keys only {', '.join(HYDRA_KEYS)}, and launcher can be set"
    except UnicodeDecodeError as error:
        return f"{path}: not UTF-8 at byte {error.start}"
    except RecursionError:
        return f"{path}: nested too deeply"
    except yaml.YAMLError as error:
        return f"{path}: not YAML: {' '.join(str(error).split())[:200]}"
    return ""


def check_yaml_folder(folder: Path) -> None:
    """Refuse a file, or a folder, of user YAML that holds tags, aliases, `_target_` or secrets.

    Raises:
        UsageError: naming each file and reason.
    """
    found = [folder] if folder.is_file() else []
    seen: set[str] = set()
    for base, folders, names in os.walk(folder, followlinks=True):  # Hydra follows links, so this does
        folders[:] = [
            f for f in folders if (real := os.path.realpath(Path(base, f))) not in seen and not seen.add(real)
        ]
        found += [Path(base, n) for n in names if n.lower().endswith((".yaml", ".yml"))]
    problems = [problem for path in sorted(found) if (problem := _check_yaml(path))]
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
