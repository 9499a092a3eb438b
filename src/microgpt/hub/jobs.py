"""Stages that are started on a run or model: resume, again, evaluate, export, register."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from microgpt.hub.app import HubApp
from microgpt.hub.dialogs import Ask, Choose, Page

FORMATS = (
    ("safetensors f32", "the project's own model directory"),
    ("safetensors f16", "half the size"),
    ("safetensors bf16", "half the size"),
    ("huggingface f32", "a folder for transformers"),
    ("gguf f16", "a file for llama.cpp and Ollama"),
    ("gguf q8_0", "a quarter of the size"),
    ("onnx f32", "a graph for onnxruntime"),
)


def run_stage(hub: HubApp, stage: str, words: list[str]) -> None:
    """Start a stage and show what it has printed at its end."""

    def done(code: int, printed: str) -> None:
        if not hub.is_running:
            return
        title = f"{stage}: done" if code == 0 else f"{stage}: exit {code}"
        text = Text(printed or "it printed nothing", hub.ink.text if code == 0 else hub.ink.bad)
        hub.push_screen(Page(title, text))

    hub.launcher.start(stage, words, done)
    hub.notify(f"python -m microgpt.{stage} {' '.join(words)}", title="started", markup=False, timeout=4)


def evaluate(hub: HubApp, path: Path) -> None:
    """Score a run on its whole validation set."""
    run_stage(hub, "evaluate", [f"run={path}"])


def export(hub: HubApp, path: Path) -> None:
    """Ask for a format and export."""

    def take(index: int | None) -> None:
        if index is not None:
            kind, dtype = FORMATS[index][0].split()
            run_stage(hub, "export", [f"run={path}", f"format={kind}", f"dtype={dtype}"])

    hub.push_screen(Choose(f"export {path.name}", FORMATS), take)


def register(hub: HubApp, path: Path) -> None:
    """Ask for an alias, then put a model into the registry under it."""
    from microgpt.config.build import is_name

    def wrong(text: str) -> str:
        return "" if is_name(text.strip()) else "letters, digits, '.', '_' and '-'"

    def take(alias: str | None) -> None:
        if alias is not None:
            words = [f"run={path}", "register=true", f"alias={alias.strip()}", "promote=always"]
            run_stage(hub, "export", words)

    hub.push_screen(Ask("alias in the registry", "best", wrong, "models:/microgpt@ALIAS becomes this model"), take)


def resume(hub: HubApp, path: Path, finished: bool) -> None:
    """Go on with a run; a finished one for so many more steps."""
    if not finished:
        hub.begin([f"resume={path}"])
        return

    def wrong(text: str) -> str:
        return "" if text.strip().isdigit() and 0 < int(text) <= 10**9 else "a whole number above 0"

    def take(steps: str | None) -> None:
        if steps is not None:
            hub.begin([f"resume={path}", f"trainer.additional_steps={int(steps)}"])

    hub.push_screen(Ask(f"{path.name} is finished: how many steps more?", "100", wrong), take)
