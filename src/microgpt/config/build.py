"""From a plain mapping to typed config, with every mistake collected instead of the first one raised."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from microgpt.config.schema import ModelConfig
from microgpt.errors import UsageError, has_password

T = TypeVar("T")


@dataclass(frozen=True)
class Setting:
    """One leaf of a config: `model.n_layer` with its type, default and metadata."""

    key: str
    type: Any
    default: Any
    help: str
    unit: str
    ge: float | None
    gt: float | None
    le: float | None
    lt: float | None
    choices: tuple[str, ...]

    @property
    def optional(self) -> bool:
        """Whether None (auto) is allowed."""
        return type(None) in typing.get_args(self.type)

    @property
    def base(self) -> Any:
        """The type without None."""
        rest = [t for t in typing.get_args(self.type) if t is not type(None)]
        return rest[0] if self.optional else self.type

    @property
    def range(self) -> str:
        """What values are allowed, in words: `1 to 1024`, `adamw or muon`, `true or false`."""
        if self.choices:
            words = ", ".join(self.choices[:-1]) + " or " + self.choices[-1] if self.choices[1:] else self.choices[0]
            return f"one or more of {words}" if typing.get_origin(self.base) is list else words
        if self.base is bool:
            return "true or false"
        low = _number(self.ge) if self.ge is not None else f"above {_number(self.gt)}" if self.gt is not None else ""
        high = _number(self.le) if self.le is not None else f"below {_number(self.lt)}" if self.lt is not None else ""
        words = f"{low} to {high}" if low and high else f"{low} or more" if low else f"up to {high}" if high else ""
        kind = {int: "a whole number", float: "a number", str: "a text"}.get(self.base, "a list of texts")
        return f"{kind}{' from ' if words else ''}{words}" + (" or null (auto)" if self.optional else "")


def _number(value: float) -> str:
    """A limit as people write it."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


@functools.cache
def settings(cls: type, prefix: str = "") -> dict[str, Setting]:
    """Every leaf of a config dataclass by its dotted key, in the order of the schema."""
    found: dict[str, Setting] = {}
    hints = typing.get_type_hints(cls)
    for item in dataclasses.fields(cls):
        key = f"{prefix}{item.name}"
        if dataclasses.is_dataclass(hints[item.name]):
            found.update(settings(hints[item.name], f"{key}."))
        else:
            default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
            found[key] = Setting(key, hints[item.name], default, **item.metadata)
    return found


def groups(cls: type) -> dict[str, type]:
    """The config groups of a stage: field name to dataclass."""
    hints = typing.get_type_hints(cls)
    return {f.name: hints[f.name] for f in dataclasses.fields(cls) if dataclasses.is_dataclass(hints[f.name])}


def nearest(name: str, valid: typing.Iterable[str]) -> str:
    """` (did you mean X?)` for the closest valid name, or nothing where none is close."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f" (did you mean {close[0]}?)" if close else ""


def unknown_key(cls: type, key: str) -> str:
    """What to say of a key that the schema does not have: the nearest name and the group's keys."""
    known = settings(cls)
    head, _, leaf = key.rpartition(".")
    siblings = [k.rpartition(".")[2] for k in known if k.rpartition(".")[0] == head]
    if not siblings:  # the group itself is unknown, or the key forgot its group
        by_leaf = [k for k in known if k.rpartition(".")[2] == leaf]
        hint = f" (did you mean {by_leaf[0]}?)" if by_leaf else nearest(key, [*known, *groups(cls)])
        tops = [*groups(cls), *(k for k in known if "." not in k)]
        return f"unknown key {key}{hint}; there are {', '.join(tops)}"
    if not head:
        siblings += groups(cls)
    close = difflib.get_close_matches(leaf, siblings, n=1, cutoff=0.5)
    elsewhere = [k for k in known if k.rpartition(".")[2] == leaf]
    best = f"{head}.{close[0]}" if head and close else close[0] if close else elsewhere[0] if elsewhere else ""
    hint = f" (did you mean {best}?)" if best else ""
    return f"unknown key {key}{hint}; {head or 'the config'} has {', '.join(siblings)}"


def _converted(item: Setting, value: Any) -> Any:
    """The value in the setting's type, or ValueError."""
    if value is None:
        if item.optional:
            return None
        raise ValueError
    base = item.base
    if typing.get_origin(base) is list:
        items = [value] if isinstance(value, (str, int, float)) else value
        if not isinstance(items, list):
            raise ValueError
        entries = typing.cast("list[object]", items)
        if any(isinstance(e, bool) or not isinstance(e, (str, int, float)) for e in entries):
            raise ValueError
        return [str(entry) for entry in entries]
    if base is bool:
        value = {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
        if not isinstance(value, bool):
            raise ValueError
        return value
    if base is str:
        if isinstance(value, (dict, list)):
            raise ValueError
        return "true" if value is True else "false" if value is False else str(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        if item.optional and value == "auto":
            return None
        raise ValueError
    if base is int:
        if isinstance(value, float) and (not math.isfinite(value) or not value.is_integer()):
            raise ValueError
        return int(value)
    number = float(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _in_range(item: Setting, value: Any) -> bool:
    if value is None or isinstance(value, bool):
        return True
    if item.choices:
        chosen = typing.cast("list[object]", value) if isinstance(value, list) else [value]
        return all(entry in item.choices for entry in chosen)
    if isinstance(value, list):
        return True
    if isinstance(value, str):
        return True
    return (
        (item.ge is None or value >= item.ge)
        and (item.gt is None or value > item.gt)
        and (item.le is None or value <= item.le)
        and (item.lt is None or value < item.lt)
    )


def value_problem(item: Setting, value: Any) -> str:
    """What is wrong with a value for a setting, or nothing."""
    near = ""
    try:
        converted = _converted(item, value)
        if _in_range(item, converted):
            return ""
        entries = typing.cast("list[object]", converted) if isinstance(converted, list) else [converted]
        near = next((nearest(str(e), item.choices) for e in entries if e not in item.choices), "")
    except (ValueError, OverflowError):
        pass
    return f"{item.key}={value}: must be {item.range}{near}"


def _make(cls: type[T], raw: Mapping[str, Any], prefix: str, root: type, problems: list[str]) -> T:
    hints = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    names = {f.name for f in dataclasses.fields(typing.cast(Any, cls))}
    problems.extend(unknown_key(root, f"{prefix}{name}") for name in raw if name not in names)
    for item in dataclasses.fields(typing.cast(Any, cls)):
        key = f"{prefix}{item.name}"
        if item.name not in raw:
            continue
        value = raw[item.name]
        if dataclasses.is_dataclass(hints[item.name]):
            if isinstance(value, Mapping):
                values[item.name] = _make(hints[item.name], value, f"{key}.", root, problems)
            else:
                problems.append(f"{key}={value!r}: a group takes a mapping")
            continue
        leaf = dataclasses.replace(settings(cls)[item.name], key=key)
        problem = value_problem(leaf, value)
        if problem:
            problems.append(problem)
        else:
            values[item.name] = _converted(leaf, value)
    return cls(**values)


def _cross_checks(config: Any) -> Iterator[str]:
    """Rules that hold between keys."""
    model = getattr(config, "model", config)  # of a stage, or the model's own as a model directory has it
    if isinstance(model, ModelConfig):
        if model.n_embd % model.n_head:
            fits = [h for h in range(1, model.n_embd + 1) if model.n_embd % h == 0 and h <= 64]
            close = min(fits, key=lambda h: abs(h - model.n_head))
            yield (
                f"model.n_embd={model.n_embd}: must be divisible by model.n_head={model.n_head} "
                f"(model.n_head={close} would do)"
            )
        elif model.position == "rope" and (model.n_embd // model.n_head) % 2:
            yield f"model.n_head={model.n_head}: rope needs an even head width, here {model.n_embd // model.n_head}"
        if model.n_kv_head is not None and model.n_head % model.n_kv_head:
            yield f"model.n_kv_head={model.n_kv_head}: must divide model.n_head={model.n_head}"
    name = getattr(config, "name", "")
    if name and not is_name(name):
        yield f"name={name!r}: must be 1 to 64 letters, digits, '.', '_' or '-', not starting with a dot"
    if getattr(config, "resume", "") and getattr(config, "from_run", ""):
        yield "resume and from_run cannot both be given: resume goes on with a run, from_run starts it again"
    tracking = getattr(config, "tracking", None)
    if tracking is not None and has_password(tracking.uri):
        yield "tracking.uri: holds a password, which would be saved with the run; put it into MLFLOW_TRACKING_URI"
    trainer = getattr(config, "trainer", None)
    if trainer is not None and trainer.additional_steps and not config.resume:
        yield f"trainer.additional_steps={trainer.additional_steps}: needs resume= to say which run goes on"


def is_name(text: str) -> bool:
    """Whether a text is a safe name: `[A-Za-z0-9._-]{1,64}` with no leading dot."""
    allowed = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
    return 0 < len(text) <= 64 and not text.startswith(".") and set(text) <= allowed


def build(cls: type[T], raw: Mapping[str, Any]) -> T:
    """The typed config from a mapping.

    Raises:
        UsageError: with all mistakes, each with its key, value, range and the nearest valid name.
    """
    config, problems = checked(cls, raw)
    refuse(problems)
    return config


def checked(cls: type[T], raw: Mapping[str, Any]) -> tuple[T, list[str]]:
    """As `build`, but with the mistakes as a list (each begins with its key); a wrong value leaves the default."""
    problems: list[str] = []
    config = _make(cls, raw, "", cls, problems)
    wrong = {p.partition("=")[0] for p in problems}
    # a rule between keys says nothing where one of them has its default in place of a wrong value
    problems.extend(p for p in _cross_checks(config) if not any(f"{key}=" in p for key in wrong))
    return config, problems


def refuse(problems: list[str]) -> None:
    """Raise one UsageError for all problems, or nothing where there are none."""
    if problems:
        count = f"{len(problems)} mistakes in the config: " if len(problems) > 1 else ""
        listed = "; ".join(f"({i}) {p}" for i, p in enumerate(problems, 1)) if count else problems[0]
        raise UsageError(count + listed, "correct the key or value; --help lists all keys")


def plain(config: Any) -> dict[str, Any]:
    """A typed config as nested plain dictionaries, ready for YAML or JSON."""
    return dataclasses.asdict(config)


def flat(config: Any) -> dict[str, Any]:
    """A typed config as dotted key to value."""
    values = plain(config)

    def walk(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
        for name, value in node.items():
            if isinstance(value, dict):
                yield from walk(typing.cast("dict[str, Any]", value), f"{prefix}{name}.")
            else:
                yield f"{prefix}{name}", value

    return dict(walk(values, ""))
