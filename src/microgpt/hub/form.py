"""The settings of the next run: what is inherited, what was changed, what is wrong, and the command it makes."""

from __future__ import annotations

import re
import shlex
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microgpt.config.build import Setting, checked, groups, settings, value_problem
from microgpt.config.schema import TrainConfig
from microgpt.config.search import config_folders, options

PLAIN = re.compile(r"[A-Za-z0-9_./:+@-]+")
HIDDEN = ("schema_version",)
GROUPS = tuple(groups(TrainConfig))


def is_list(item: Setting) -> bool:
    """Whether a setting takes several texts."""
    return typing.get_origin(item.base) is list


def shown(value: Any) -> str:
    """A value as the form shows it and as it is typed."""
    if value is None:
        return "auto"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ", ".join(map(str, typing.cast("list[object]", value)))
    if isinstance(value, float):
        return f"{value:.10g}"
    return str(value)


def parsed(item: Setting, text: str) -> Any:
    """The value that a typed text means; a text that means none stays, so that the check can say so."""
    word = text.strip()
    if is_list(item):
        return [part.strip() for part in word.strip("[]").split(",") if part.strip()]
    if item.optional and word.lower() in ("auto", "null", ""):
        return None
    if item.base is bool:
        return {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}.get(
            word.lower(), word
        )
    if item.base in (int, float):
        bare = word.replace("_", "").replace(",", "") if re.fullmatch(r"\d{1,3}([_,]\d{3})+", word) else word
        try:
            return int(bare)
        except ValueError:
            pass
        try:
            return float(bare)
        except ValueError:
            return word
    return word


def parts(item: Setting, text: str) -> list[str]:
    """The values of a sweep: what stands between commas; one where there are none, or where commas make a list."""
    word = text.strip()
    if is_list(item) or "," not in word or re.fullmatch(r"\d{1,3}(,\d{3})+", word):
        return [word]
    if item.base is str and not item.choices:
        return [word]
    return [part.strip() for part in word.split(",") if part.strip()]


def quoted(text: str) -> str:
    """A text as Hydra's grammar takes it."""
    if PLAIN.fullmatch(text):
        return text
    escaped = re.sub(r"(\\+)('|$)", r"\1\1\2", text).replace("'", "\\'")
    return f"'{escaped}'"


def word_of(key: str, value: Any) -> str:
    """A value as an override."""
    if value is None:
        return f"{key}=null"
    if isinstance(value, list):
        return f"{key}=[{','.join(quoted(str(v)) for v in typing.cast('list[object]', value))}]"
    if isinstance(value, str):
        return f"{key}={quoted(value)}"
    return f"{key}={shown(value)}"


@dataclass(frozen=True)
class Row:
    """A row of the form.

    Attributes:
        kind: `group` (an option is chosen), `head` or `field`.
        key: dotted key, or the group's name.
    """

    kind: str
    key: str


class Form:
    """The state behind the Train tab; no widget.

    Attributes:
        experiment: its name, or nothing.
        chosen: group to option, as the user chose it.
        standing: group to option, as the stage and the experiment have it.
        inherited: key to value, without the user's own fields.
        changes: key to what the user has typed.
        problems: key to what is wrong with it; "" holds what belongs to no field.
    """

    def __init__(self) -> None:
        self.settings = {k: s for k, s in settings(TrainConfig).items() if k not in HIDDEN}
        self.experiment = ""
        self.chosen: dict[str, str] = {}
        self.standing: dict[str, str] = {}
        self.inherited: dict[str, Any] = {k: s.default for k, s in self.settings.items()}
        self.changes: dict[str, str] = {}
        self.problems: dict[str, str] = {}
        self.config = TrainConfig()

    def rows(self, only_changed: bool = False) -> list[Row]:
        """The rows in the schema's order: presets, then each group with its option and fields."""
        found = [Row("group", "experiment")]
        last = ""
        for key in self.settings:
            group = key.partition(".")[0] if "." in key else ""
            if group != last:
                last = group
                found.append(Row("group" if self.options(group) else "head", group))
            if not only_changed or key in self.changes or key in self.problems:
                found.append(Row("field", key))
        if only_changed:  # groups of which nothing is left
            keep = {r.key.partition(".")[0] for r in found if r.kind == "field"} | set(self.chosen) | {"experiment"}
            found = [r for r in found if r.kind == "field" or r.key in keep]
        return found

    def options(self, group: str) -> list[str]:
        """The options of a group."""
        return options(group, config_folders()) if group else []

    def option(self, group: str) -> str:
        """The option that a group has."""
        if group == "experiment":
            return self.experiment
        return self.chosen.get(group) or self.standing.get(group, "")

    def value(self, key: str) -> str:
        """What a field shows."""
        return self.changes.get(key, shown(self.inherited[key]))

    def set(self, key: str, text: str) -> None:
        """Change a field; what is inherited is no change."""
        if text.strip() == shown(self.inherited[key]):
            self.changes.pop(key, None)
        else:
            self.changes[key] = text.strip()
        self.check()

    def reset(self, key: str) -> None:
        """Take a change back."""
        self.changes.pop(key, None)
        self.chosen.pop(key, None)
        if key == "experiment":
            self.experiment = ""
        self.check()

    def load(self, overrides: typing.Iterable[str]) -> None:
        """Take the overrides of a recorded run in place of everything that was set."""
        self.experiment, self.chosen, self.changes = "", {}, {}
        for word in overrides:
            key, _, value = word.lstrip("+").partition("=")
            bare = value.strip("'\"")
            if key == "experiment":
                self.experiment = "" if bare == "null" else bare
            elif key in GROUPS:
                self.chosen[key] = bare
            elif key in self.settings and key not in ("resume", "from_run"):
                self.changes[key] = bare.strip("[]").replace("'", "") if is_list(self.settings[key]) else bare

    def base_words(self) -> list[str]:
        """The overrides that `inherited` comes from."""
        found = [f"experiment={self.experiment}"] if self.experiment else []
        return found + [f"{g}={o.split(',')[0].strip()}" for g, o in self.chosen.items()]

    def words(self) -> list[str]:
        """All overrides; a sweep's values stand between commas."""
        found = [f"experiment={self.experiment}"] if self.experiment else []
        found += [f"{group}={option.replace(' ', '')}" for group, option in self.chosen.items()]
        for key, text in self.changes.items():
            item = self.settings[key]
            several = parts(item, text)
            if len(several) > 1:
                values = [word_of("", parsed(item, part)).removeprefix("=") for part in several]
                found.append(f"{key}={','.join(values)}")
            else:
                found.append(word_of(key, parsed(item, several[0] if several else "")))
        return found

    def runs(self) -> int:
        """How many runs the command makes: more than one is a sweep."""
        count = 1
        for option in (*self.chosen.values(), self.experiment):
            count *= max(1, len([o for o in option.split(",") if o.strip()]))
        for key, text in self.changes.items():
            count *= max(1, len(parts(self.settings[key], text)))
        return count

    def arguments(self) -> list[str]:
        """The words of the command line behind `python -m microgpt.train`."""
        return (["-m"] if self.runs() > 1 else []) + self.words()

    def command(self) -> str:
        """The equivalent command."""
        return " ".join(["python -m microgpt.train", *([shlex.join(self.arguments())] if self.arguments() else [])])

    def inherit(self, values: Mapping[str, Any], standing: Mapping[str, str]) -> None:
        """Take a newly composed config; changes that it makes needless go."""
        self.inherited = {key: values[key] for key in self.settings}
        self.standing = dict(standing)
        for key, text in list(self.changes.items()):
            if text == shown(self.inherited[key]):
                del self.changes[key]
        self.check()

    def field_problem(self, key: str, text: str) -> str:
        """What is wrong with a text for a field, or nothing."""
        item = self.settings[key]
        for part in parts(item, text) or [""]:
            problem = value_problem(item, parsed(item, part))
            if problem:
                return problem.partition(": ")[2]
        return ""

    def check(self) -> None:
        """Find what is wrong with all of it."""
        self.problems = {k: p for k, text in self.changes.items() if (p := self.field_problem(k, text))}
        raw: dict[str, Any] = {}
        for key, value in self.inherited.items():
            if key in self.changes and key not in self.problems:
                item = self.settings[key]
                value = parsed(item, (parts(item, self.changes[key]) or [""])[0])
            group, _, leaf = key.rpartition(".")
            (raw.setdefault(group, {}) if group else raw)[leaf] = value
        self.config, found = checked(TrainConfig, raw)
        for problem in found:
            key, _, text = problem.partition(": ")
            key = key.partition("=")[0]
            self.problems[key if key in self.settings else ""] = text if key in self.settings else problem
