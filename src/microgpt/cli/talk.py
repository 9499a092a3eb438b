"""Verbs that talk: chat, chat-once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from microgpt import errors
from microgpt.cli.app import (
    Device,
    LastN,
    MaxTokens,
    MinP,
    MinTokens,
    Penalty,
    Seed,
    Stop,
    Temperature,
    TopK,
    TopP,
    app,
    load_reference,
)  # fmt: skip


def default_chat_model() -> Path:
    """The model to talk to when none is named: the user's own, the registry's best, the newest chat run.

    Raises:
        ModelError: there is none.
    """
    import json

    from microgpt.runs.find import all_runs, model_path

    def talks(path: Path) -> bool:
        return "<end_turn>" in json.loads((path / "meta.json").read_text()).get("special_tokens", {})

    own = Path.home() / ".config" / "microgpt" / "default-chat-model"
    if own.exists():
        return own
    if Path("mlruns/mlflow.db").exists():
        from contextlib import suppress

        from microgpt.config.schema import TrackingConfig
        from microgpt.tracking.registry import registered

        with suppress(errors.ModelError, OSError, ValueError):
            best = registered("models:/microgpt@best", TrackingConfig())
            if talks(best):  # the best model may be one of plain text
                return best
    for run in reversed(all_runs()):
        try:
            path = model_path(str(run.path))
            if talks(path):
                return path
        except (errors.MicrogptError, OSError, ValueError):
            continue
    raise errors.ModelError("there is no chat model yet", "make one with `make chat-model`, or name one")


def _chat_model(reference: str, device: str) -> Any:
    """The loaded model to talk to."""
    from microgpt.inference.chat import require_chat

    loaded = load_reference(reference or str(default_chat_model()), device)
    require_chat(loaded.tokenizer)
    return loaded


def _chat_sampling(
    temperature: float,
    max_new_tokens: int,
    top_k: int,
    top_p: float,
    penalty: float,
    seed: int,
    min_p: float,
    repeat_last_n: int,
    min_new_tokens: int,
    stop: list[str] | None,
) -> Any:
    from microgpt.config.schema import SamplingConfig

    return SamplingConfig(
        temperature=temperature, max_new_tokens=max_new_tokens, top_k=top_k, top_p=top_p,
        repetition_penalty=penalty, repeat_last_n=repeat_last_n, seed=seed, min_p=min_p,
        min_new_tokens=min_new_tokens, stop=stop or [],
    )  # fmt: skip


@app.command()
def chat(
    model_dir: Annotated[str, typer.Option("--model-dir", "-m", help="A run, model or models:/name@alias.")] = "",
    temperature: Temperature = 0.35,
    max_new_tokens: MaxTokens = 180,
    top_k: TopK = 20,
    top_p: TopP = 0.92,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.15,
    repeat_last_n: LastN = 64,
    min_new_tokens: MinTokens = 20,
    stop: Stop = None,
    seed: Seed = 42,
    device: Device = "auto",
) -> None:
    """Talk to a model; /help lists what else can be done."""
    from microgpt.cli.repl import talk

    loaded = _chat_model(model_dir, device)
    if sys.stdin.isatty():
        print("/help lists the commands, /quit leaves", file=sys.stderr)
    talk(
        loaded.engine,
        loaded.tokenizer,
        _chat_sampling(
            temperature,
            max_new_tokens,
            top_k,
            top_p,
            repetition_penalty,
            seed,
            min_p,
            repeat_last_n,
            min_new_tokens,
            stop,
        ),
    )


@app.command("chat-once")
def chat_once(
    model: Annotated[str, typer.Argument(help="A run, checkpoint, model folder or models:/name@alias.")],
    prompt: Annotated[str, typer.Argument(help="What to say; - reads standard input.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the reply as JSON.")] = False,
    temperature: Temperature = 0.35,
    max_new_tokens: MaxTokens = 180,
    top_k: TopK = 20,
    top_p: TopP = 0.92,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.15,
    repeat_last_n: LastN = 64,
    min_new_tokens: MinTokens = 20,
    stop: Stop = None,
    seed: Seed = 42,
    device: Device = "auto",
) -> None:
    """Print the reply to one message, and nothing else."""
    import json

    text = sys.stdin.read() if prompt == "-" else prompt
    if not text.strip():
        raise errors.UsageError("the prompt is empty", "say something")
    loaded = _chat_model(model, device)
    from microgpt.inference.chat import reply_to

    sampling = _chat_sampling(
        temperature,
        max_new_tokens,
        top_k,
        top_p,
        repetition_penalty,
        seed,
        min_p,
        repeat_last_n,
        min_new_tokens,
        stop,
    )
    reply = reply_to(loaded.engine, loaded.tokenizer, [("user", text)], sampling)
    if as_json:
        facts = {"role": "assistant", "content": reply.text, "finish": reply.finish, "tokens": reply.tokens}
        print(json.dumps({**facts, "tokens_dropped": reply.tokens_dropped}, ensure_ascii=False))
    else:
        print(errors.visible(reply.text))
