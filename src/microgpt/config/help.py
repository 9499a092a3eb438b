"""`--help` of the stages, made from the schema: plain text, so that no library must be imported for it."""

from __future__ import annotations

import shutil
import textwrap
from typing import Any

from microgpt.config.build import Setting, groups, settings
from microgpt.config.search import config_folders, options

EXAMPLES = {
    "train": (
        "python -m microgpt.train",
        "python -m microgpt.train model=small device=cpu data=text data.path=my.txt",
        "python -m microgpt.train experiment=shakespeare",
        "python -m microgpt.train resume=latest",
        "python -m microgpt.train -m model=micro,tiny optimizer.learning_rate=0.01,0.003",
    ),
    "validate": (
        "python -m microgpt.validate data.path=my.txt",
        "python -m microgpt.validate data=conversations",
    ),
    "evaluate": ("python -m microgpt.evaluate run=latest", "python -m microgpt.evaluate run=[latest,best]"),
    "export": (
        "python -m microgpt.export run=latest format=safetensors dtype=f16",
        "python -m microgpt.export run=best format=[huggingface,gguf]",
    ),
    "compare": (
        "python -m microgpt.compare",
        "python -m microgpt.compare runs=outputs/2026-11-28/01-05-39-sweep",
        "python -m microgpt.compare runs=[latest,best]",
    ),
    "pipeline": ("python -m microgpt.pipeline recipe=names",),
}


def _value(item: Setting) -> str:
    if item.default is None:
        return "auto"
    if item.default == "" or item.default == []:
        return "-"
    if isinstance(item.default, list):
        return ",".join(map(str, item.default))  # pyright: ignore[reportUnknownArgumentType]
    return str(item.default).lower() if isinstance(item.default, bool) else str(item.default)


def _row(item: Setting, width: int) -> str:
    limits = "" if item.base is str and not item.choices else f" [{item.range}]"
    unit = f", {item.unit}" if item.unit else ""
    head = f"  {item.key:<32} {_value(item):<12} "
    text = f"{item.help}{unit}{limits}"
    body = textwrap.wrap(text, max(30, width - 48)) or [""]
    indent = "\n" + " " * 48
    return head + ("" if len(head) <= 48 else indent) + indent.join(body)


def render(stage: str, cls: type[Any]) -> str:
    """The help text of a stage: what it does, examples, groups with their choices, then every key."""
    width = min(120, shutil.get_terminal_size((100, 24)).columns)
    folders = config_folders()
    doc = (cls.__doc__ or "").strip()
    lines = [doc, "", "examples:", *(f"  {e}" for e in EXAMPLES[stage]), ""]
    choosable = {name: options(name, folders) for name in (*groups(cls), "experiment")}
    if stage not in ("train", "validate"):
        choosable.pop("experiment")
    lines.append("groups (choose with group=option):")
    for name, found in choosable.items():
        if found:
            text = textwrap.wrap(", ".join(found), max(30, width - 16))
            lines.append(f"  {name:<13} " + ("\n" + " " * 16).join(text))
    lines += ["", "keys (set with key=value):", f"  {'key':<32} {'default':<12} meaning [range]"]
    last = ""
    for key, item in settings(cls).items():
        group = key.partition(".")[0] if "." in key else ""
        if group != last:
            lines.append("")
            last = group
        lines.append(_row(item, width))
    lines += [
        "",
        "flags:",
        "  -m, --multirun   sweep: a run for every combination of comma-separated values",
        "  --cfg job        print the composed config and stop",
        "  --debug          show tracebacks",
        "  --version        print the version",
    ]
    return "\n".join(lines)
