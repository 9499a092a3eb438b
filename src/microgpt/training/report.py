"""The tables at the start and the end of a run."""

from __future__ import annotations

import math
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from microgpt.config.depth import plan
from microgpt.config.schema import TrainConfig
from microgpt.data.mixture import Prepared
from microgpt.errors import printable
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import Tokenizer
from microgpt.training.compiling import Plan
from microgpt.training.fit import Fitted
from microgpt.training.samples import prompts_for

CONSOLE = Console(stderr=True)


def human_seconds(seconds: float) -> str:
    """`95` as `1 min 35 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _table(title: str, rows: list[tuple[str, str]]) -> None:
    table = Table(title=title, show_header=False, title_justify="left", box=None, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, escape(text))
    CONSOLE.print(table)


def start_table(
    config: TrainConfig,
    folder: Path,
    prepared: Prepared,
    model: GPT,
    device: str,
    precision: str,
    plan: Plan,
    note: str,
) -> None:
    """Say what will be trained, on what, and how long it may take."""
    m, t, facts, tokenizer = config.model, config.trainer, prepared.facts, prepared.tokenizer
    train, val = facts["train"], facts["val"]
    tokens = (config.data.batch_size or 1) * t.accumulate * m.block_size
    steps = (t.max_steps or 0) + t.additional_steps
    rows = [
        (
            "data",
            f"{train['documents']:,} documents, {train['positions']:,} tokens to train on; "
            f"{val['documents']:,} and {val['positions']:,} to validate on",
        ),
        ("tokenizer", f"{tokenizer.kind}, {tokenizer.vocab_size:,} tokens"),
        (
            "model",
            f"{m.n_layer} layers x {m.n_embd} wide x {m.n_head} heads, context {m.block_size}; "
            f"{model.parameter_count():,} parameters, {model.flops_per_token():,} FLOPs a token",
        ),
        (
            "training",
            f"{steps:,} steps of {tokens:,} tokens ({steps * tokens / max(1, train['positions']):.1f} epochs), "
            f"{config.optimizer.name}; on {device} in {precision}, threads: {config.device.threads}",
        ),
        ("estimate", f"about {human_seconds(plan.seconds)}"),
        ("compiled", f"{'yes' if plan.compiled else 'no'}: {plan.why}"),
        ("loss", f"a random guess has ln({tokenizer.vocab_size:,}) = {math.log(tokenizer.vocab_size):.2f}"),
        ("run folder", str(folder)),
    ]
    if m.depth is not None:
        rows.insert(3, ("depth", _depth(config, model.parameter_count(), train["positions"])))
    chat = {name.replace("_", " "): count for name, count in facts["conversations"].items() if count}
    if chat:
        rows.insert(1, ("conversations", ", ".join(f"{count:,} {name}" for name, count in chat.items())))
    if note:
        rows.insert(0, ("resume", note))
    _table("", rows)


def _depth(config: TrainConfig, parameters: int, train_tokens: int) -> str:
    """What the dial has set, and what has won over it."""
    m, o, t = config.model, config.optimizer, config.trainer
    tokens = (config.data.batch_size or 1) * t.accumulate * m.block_size * (t.max_steps or 0)
    bound = plan(parameters, m.block_size, train_tokens).bound
    return (
        f"{m.depth}: {m.n_embd} wide, {m.n_head} heads, learning rate {o.learning_rate:.3g}, "
        f"{config.data.batch_size} x {t.accumulate} rows a step, {t.max_steps:,} steps; "
        f"{tokens / parameters:.2g} tokens a parameter (the rule: {bound})"
    )


def end_table(folder: Path, fitted: Fitted, tokenizer: Tokenizer, samples: list[str], tracking: str) -> None:
    """Say how it went, show samples, and name the next commands."""
    module = fitted.module
    best = module.best
    bits = f", {best.bpb:.3f} bits a byte" if math.isfinite(best.bpb) else ""
    speed = module.tokens_done / module.elapsed if module.elapsed else 0.0
    CONSOLE.print("\n[bold]samples[/bold]")
    prompts = prompts_for(tokenizer)
    for number, text in enumerate(samples):
        if prompts:
            CONSOLE.print(f"  [dim]{escape(prompts[number])}[/dim]", highlight=False)
        CONSOLE.print("  " + escape(printable(text)) if text else "  [dim](empty)[/dim]", highlight=False)
    CONSOLE.print()
    early = " (stopped early: the validation loss no longer fell)" if fitted.stopped_early else ""
    early = early or (" (pruned: the sweep has better trials)" if fitted.pruned else "")
    _table(
        "",
        [
            ("validation loss", f"{best.loss:.4f} nats a token at step {best.step:,}{bits}, perplexity "
             f"{math.exp(min(best.loss, 700)):.2f}; a random guess has {math.log(tokenizer.vocab_size):.4f}"),
            ("trained", f"{module.steps_done:,} steps{early}, {module.tokens_done:,} tokens in "
             f"{human_seconds(module.elapsed)} ({speed:,.0f} tokens a second), and evaluated for "
             f"{human_seconds(module.evaluating)} ({module.eval_pct:.0f} % of the time)"),
            ("run folder", str(folder)),
        ],
    )  # fmt: skip
    if fitted.profile:
        table = Table(title="where the time went", title_justify="left", box=None, padding=(0, 2, 0, 0))
        table.add_column("phase")
        table.add_column("seconds", justify="right")
        table.add_column("%", justify="right")
        for name, spent, share in fitted.profile:
            table.add_row(name, f"{spent:.2f}", f"{share:.1f}")
        CONSOLE.print(table)
        CONSOLE.print()
    following = [
        f"microgpt {'chat' if prompts else 'generate'} --model-dir {folder}",
        f"python -m microgpt.evaluate run={folder}",
        f"python -m microgpt.export run={folder}",
        *(["microgpt ui    (compare runs in MLflow)"] if tracking != "off" else []),
    ]
    for number, line in enumerate(following):
        # never wrapped: it is there to be copied
        CONSOLE.print(f"{'next' if not number else '':<17}{line}", soft_wrap=True, highlight=False, markup=False)
