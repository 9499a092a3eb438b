"""`python -m microgpt.pipeline`: the stages of a recipe in order; what has not changed is not done again.

Each stage is a process of its own, as if its command had been typed. What went in and what came out of each is
kept in `outputs/pipelines/<recipe>/state.json`; a stage runs again where its config, its data, the stage before it
or this package have changed, or where its output is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import run_folder, stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import PipelineConfig

MODULES = {s: f"microgpt.{s}" for s in ("validate", "train", "evaluate", "export")}
REPLY = "reply"  # not a Hydra app: `microgpt chat-once` on what was exported, with the stage's words as the prompt
OUTPUTS = {"validate": "report.json", "train": "checkpoints/best", "evaluate": "evaluation.json"}


@dataclass(frozen=True)
class StageRecipe:
    """One stage of a recipe: its name and overrides."""

    stage: str
    overrides: list[str]


def read_recipe(name: str) -> list[StageRecipe]:
    """The stages of a recipe, checked.

    Raises:
        UsageError: there is no such recipe, or it names unknown stages or keys.
    """
    import yaml

    from microgpt.config.build import nearest
    from microgpt.config.compose import check_arguments
    from microgpt.config.scan import check_yaml_folder
    from microgpt.errors import UsageError
    from microgpt.files import shipped

    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        own = Path("pipelines") / f"{name}.yaml"
        path = own if own.exists() else shipped("pipelines") / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in shipped("pipelines").glob("*.yaml"))
        raise UsageError(
            f"recipe={name}: there is no such recipe{nearest(name, known)}",
            f"use {', '.join(known)}, or the path of a YAML file",
        )
    check_yaml_folder(path)
    content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    try:
        stages = [StageRecipe(str(e["stage"]), [str(o) for o in e.get("overrides") or []]) for e in content["stages"]]
    except (TypeError, KeyError, AttributeError):
        raise UsageError(f"{path} is no recipe", "it needs `stages:`, a list of {stage, overrides}") from None
    for entry in stages:
        if entry.stage == REPLY:
            continue
        if entry.stage not in MODULES:
            known = [*MODULES, REPLY]
            raise UsageError(f"{path}: stage {entry.stage!r}{nearest(entry.stage, known)}", f"use {', '.join(known)}")
        check_arguments(entry.overrides, entry.stage)
    return stages


def inputs_of(entry: StageRecipe, before: dict[str, str]) -> dict[str, Any]:
    """What a stage depends on: its composed config, its data's content, the package, and the run it works on."""
    from importlib.metadata import version

    from microgpt.checkpoints.folder import MANIFEST, find
    from microgpt.config.build import plain
    from microgpt.config.compose import compose
    from microgpt.data.prepare import data_fingerprint
    from microgpt.data.sources import find_sources
    from microgpt.files import sha256_file

    config = compose(entry.overrides, entry.stage)
    content = plain(config)
    content.pop("tracking", None)
    inputs: dict[str, Any] = {"config": content, "microgpt": version("microgpt")}
    if entry.stage in ("validate", "train"):
        inputs["data"] = data_fingerprint(find_sources(config.data))
    elif "train" in before:
        inputs["run"] = before["train"]
        inputs["checkpoint"] = sha256_file(find(Path(before["train"]) / "checkpoints", "best") / MANIFEST)
    return inputs


def run_pipeline(config: PipelineConfig, overrides: list[str], output: Path) -> None:
    """The stages of the recipe, under one MLflow parent run.

    Raises:
        UsageError: the recipe is wrong.
        SystemExit: a stage failed; its exit code is passed on.
    """
    from rich.console import Console
    from rich.table import Table

    from microgpt import files
    from microgpt.errors import debugging
    from microgpt.tracking.start import PARENT, end_parent, start_parent

    stages = read_recipe(config.recipe)
    name = Path(config.recipe).stem
    home = Path("outputs") / "pipelines" / name
    state: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        state = files.read_json(home / "state.json")
    home.mkdir(parents=True, exist_ok=True)
    console = Console(stderr=True)
    tracked = config.tracking.kind != "off"
    environment = dict(os.environ)
    if not debugging():
        environment.pop("HYDRA_FULL_ERROR", None)  # set for our own Hydra; it would make the stages show tracebacks
    parent = ""
    done: dict[str, str] = {}
    rows: list[tuple[str, str, str, str]] = []
    status = "FAILED"
    try:
        for entry in stages:
            extra = [w for w in config.override if concerns(w, entry.stage)]
            entry = StageRecipe(entry.stage, [*entry.overrides, *extra])
            if entry.stage == REPLY:
                rows.append((entry.stage, _reply(entry, done), done.get("export", ""), ""))
                continue
            inputs = inputs_of(entry, done)
            digest = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
            known: dict[str, Any] = state.get(entry.stage, {})
            made = Path(known.get("output", ""))
            there = known.get("inputs_sha256") == digest and is_made(entry.stage, made)
            if there and not config.force:
                done[entry.stage] = str(made)
                rows.append((entry.stage, "skipped: nothing has changed", str(made), ""))
                console.print(f"{entry.stage}: skipped, its inputs have not changed ({made})", highlight=False)
                continue
            if tracked and not parent:
                parent = start_parent(f"pipeline {name}", "pipeline", config.tracking)
                environment[PARENT] = parent
            words, made = _command(entry, name, done)
            words += [f"tracking={config.tracking.kind}", f"tracking.experiment={config.tracking.experiment}"]
            if config.tracking.uri:
                words.append(f"tracking.uri={config.tracking.uri}")
            console.rule(f"{entry.stage}")
            console.print(
                "$ python -m " + shlex.join(words), style="dim", highlight=False, markup=False, soft_wrap=True
            )
            started = time.monotonic()
            code = subprocess.run(
                [sys.executable, "-m", *words], env=environment, stdin=subprocess.DEVNULL
            ).returncode
            if code:
                print(f"error: the stage {entry.stage} failed - see above; what is done is kept", file=sys.stderr)
                raise SystemExit(code)
            seconds = time.monotonic() - started
            done[entry.stage] = str(made)
            state[entry.stage] = {
                "inputs_sha256": digest,
                "inputs": inputs,
                "output": str(made),
                "seconds": round(seconds, 1),
                "ended": runtime.now_iso(),
            }
            files.write_json(home / "state.json", state)
            rows.append((entry.stage, "done", str(made), f"{seconds:.1f} s"))
        status = "FINISHED"
    finally:
        if parent:
            from microgpt.tracking.results import log_results

            log_results(config.tracking, name, run_id=parent, artifacts=[home / "state.json"])
            end_parent(parent, status, config.tracking)
    table = Table(title=f"pipeline {name}", title_justify="left")
    for column in ("stage", "what", "output", "time"):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if "train" in done:
        console.print(f"next: microgpt generate --model-dir {done['train']}", highlight=False, soft_wrap=True)


def is_made(stage: str, folder: Path) -> bool:
    """Whether the output of a stage is still there; exports, of which there may be several, must be whole."""
    from microgpt.checkpoints.folder import MANIFEST, verify
    from microgpt.errors import ModelError

    if stage != "export":
        return (folder / OUTPUTS[stage]).exists()
    exports = [path.parent for path in folder.rglob(MANIFEST)]
    try:
        for path in exports:
            verify(path)
    except ModelError:
        return False
    return bool(exports)


def concerns(word: str, stage: str) -> bool:
    """Whether an override of the whole pipeline belongs to a stage: it has the key, or the group."""
    from microgpt.config.build import groups, settings
    from microgpt.config.schema import STAGES

    key = word.partition("=")[0].lstrip("+~")
    cls = STAGES.get(stage)
    return stage in ("validate", "train") and cls is not None and (key in settings(cls) or key in groups(cls))


def _reply(entry: StageRecipe, done: dict[str, str]) -> str:
    """What the model answers to the stage's words; it costs a second and is never skipped."""
    from microgpt.checkpoints.folder import META

    exported = sorted(path.parent for path in Path(done["export"]).rglob(META)) if "export" in done else []
    model = str(exported[0]) if exported else done.get("train", "latest")
    words = ["microgpt.cli", "chat-once", model, " ".join(entry.overrides)]
    print("$ microgpt " + shlex.join(words[1:]), file=sys.stderr)
    answer = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if answer.returncode:
        print(answer.stderr, end="", file=sys.stderr)
        raise SystemExit(answer.returncode)
    print(answer.stdout, end="")
    return answer.stdout.strip()


def _command(entry: StageRecipe, name: str, done: dict[str, str]) -> tuple[list[str], Path]:
    """The words after `python -m` of a stage, and where its output will be."""
    words = [MODULES[entry.stage], *entry.overrides]
    if entry.stage in ("validate", "train"):
        stamp = runtime.now_iso()[:19].replace("T", "/").replace(":", "-")
        folder = run_folder(stamp, f"{name}-{entry.stage}", "", "", "", [], "")
        return [*words, f"hydra.run.dir={folder}"], Path(folder)
    run = done.get("train", "latest")
    if entry.stage == "evaluate":
        return [*words, f"run={run}"], Path(run)
    given = [word.removeprefix("output=") for word in words if word.startswith("output=")]
    target = Path(given[-1]) if given else Path(run) / "export" / "pipeline"
    return [*words, f"output={target}", f"run={run}"], target


def main() -> int:
    """Entry point."""
    runtime.quiet_libraries()
    return stage_main("pipeline", run_pipeline)


if __name__ == "__main__":
    sys.exit(main())
