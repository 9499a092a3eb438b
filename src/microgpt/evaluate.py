"""`python -m microgpt.evaluate`: score runs on their whole validation set, beside simple baselines."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from microgpt import runtime
from microgpt.config.main import stage_main

if TYPE_CHECKING:
    from microgpt.config.schema import EvaluateConfig
    from microgpt.data.baselines import Baselines
    from microgpt.inference.chat import ChatScore
    from microgpt.inference.score import Score


@dataclass(frozen=True)
class Evaluation:
    """What evaluating one run found."""

    folder: Path
    checkpoint: Path
    score: Score
    baselines: Baselines
    baseline_bpb: tuple[float | None, float | None]
    samples: list[str]
    parameters: int
    chat: ChatScore | None

    def to_json(self) -> dict[str, Any]:
        """For evaluation.json."""
        positions = [None if math.isnan(v) else v for v in self.score.position_loss.tolist()]
        return {
            "checkpoint": str(self.checkpoint),
            "loss": self.score.loss,
            "perplexity": self.score.ppl,
            "bits_per_byte": self.score.bpb,
            "tokens": self.score.tokens,
            "parameters": self.parameters,
            "unigram_loss": self.baselines.unigram,
            "bigram_loss": self.baselines.bigram,
            "unigram_bits_per_byte": self.baseline_bpb[0],
            "bigram_bits_per_byte": self.baseline_bpb[1],
            "position_loss": positions,
            "samples": self.samples,
            "chat": None if self.chat is None else asdict(self.chat),
        }


def evaluate_one(reference: str, config: EvaluateConfig, device: str) -> Evaluation:
    """Score one run, write its evaluation.json and plot, and log both.

    Raises:
        ModelError: there is no such run, or its checkpoint is damaged.
        DataError: its data is gone or has changed.
    """
    from microgpt import files
    from microgpt.checkpoints.model import load_weights, open_model
    from microgpt.config.build import build
    from microgpt.config.compose import migrated
    from microgpt.config.schema import TrainConfig
    from microgpt.data.baselines import baselines
    from microgpt.data.mixture import content_fingerprint, prepare_all
    from microgpt.errors import DataError
    from microgpt.inference.chat import chat_score, prompt_sheet
    from microgpt.inference.generate import generate
    from microgpt.inference.score import score
    from microgpt.inference.torch_backend import engine_of
    from microgpt.runs.find import find_run, model_path
    from microgpt.runs.folder import read_config

    checkpoint = model_path(reference, config.checkpoint)
    within = checkpoint.resolve().parent.name == "checkpoints"
    run = find_run(str(checkpoint.parent.parent) if within else reference)
    opened = open_model(checkpoint)
    trained = build(TrainConfig, migrated(read_config(run.path)))
    block = opened.config.block_size
    shown = config.tracking.progress
    known = run.facts.get("data", {}).get("fingerprint")
    if known and known != content_fingerprint(trained.data):  # before other data meets the tokenizer
        raise DataError(
            f"the data of {run.path} has changed since it was trained: scores would not compare",
            "bring the old file back",
        )
    prepared = prepare_all(trained.data, trained.tokenizer, opened.tokenizer, shown, block)
    model = load_weights(opened, device)
    batches = prepared.val_batches(trained.data, block, max(1, config.batch_tokens // block))
    with _bar(config.tracking.progress) as progress:
        scored = score(model, batches, opened.tokenizer.token_bytes(), progress)
    simple = baselines([(p.train, b.tokens) for p, b in zip(prepared.parts, batches)], opened.vocab_size)
    per_nat = None if scored.bpb is None else scored.bpb / scored.loss
    talked = None
    engine = engine_of(model, config.sampling.num_samples)
    if opened.tokenizer.is_chat:
        talked = chat_score(engine, opened.tokenizer, prompt_sheet(), config.sampling)
        samples = [f"{p} -> {r}" for p, r in talked.replies]
    else:
        samples = [s.text for s in generate(engine, opened.tokenizer, config.sampling)]
    found = Evaluation(
        run.path,
        checkpoint,
        scored,
        simple,
        (None, None) if per_nat is None else (simple.unigram * per_nat, simple.bigram * per_nat),
        samples,
        model.parameter_count(),
        talked,
    )
    files.write_json(run.path / "evaluation.json", found.to_json())
    plot(found, run.path / "position_loss.png")
    from microgpt.tracking.results import log_results

    metrics = {
        "eval/loss": scored.loss,
        "eval/ppl": scored.ppl,
        "eval/unigram_loss": simple.unigram,
        "eval/bigram_loss": simple.bigram,
    }
    if scored.bpb is not None:
        metrics["eval/bpb"] = scored.bpb
    if talked is not None:
        values = asdict(talked)
        values.pop("replies")
        metrics.update({f"eval/chat_{key}": value for key, value in values.items()})
    log_results(
        config.tracking,
        run.path.name,
        run_id=run.mlflow_id,
        metrics=metrics,
        artifacts=[run.path / "evaluation.json", run.path / "position_loss.png"],
    )
    return found


def _bar(shown: bool) -> Any:
    """A context that gives a progress function, drawn on a terminal only."""
    from contextlib import contextmanager

    @contextmanager
    def bar() -> Any:
        if not shown or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import Progress

        with Progress(console=Console(stderr=True), transient=True) as drawn:
            task = drawn.add_task("scoring", total=None)

            def told(done: int, every: int) -> None:
                drawn.update(task, completed=done, total=every)

            yield told

    return bar()


def plot(found: Evaluation, path: Path) -> None:
    """Loss by position in the context: how much the model gains from what stands before."""
    import io

    import numpy as np
    from matplotlib.figure import Figure

    from microgpt import files

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    losses = found.score.position_loss
    axes.plot(np.arange(len(losses)), losses, linewidth=1, label="model")
    axes.axhline(found.baselines.bigram, color="gray", linestyle="--", linewidth=1, label="bigram")
    axes.set_xlabel("position in the document")
    axes.set_ylabel("loss, nats a token")
    axes.legend()
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=110)
    files.write_bytes(path, out.getvalue())


def run_evaluate(config: EvaluateConfig, overrides: list[str], output: Path) -> None:
    """The stage."""
    device = runtime.choose_device(config.device.name)
    runtime.set_threads(config.device.threads)
    found = [evaluate_one(reference, config, device) for reference in config.run]
    found.sort(key=lambda e: (e.score.bpb if e.score.bpb is not None else math.inf, e.score.loss))
    if config.tracking.progress:
        show(found)


def show(found: list[Evaluation]) -> None:
    """Print the comparison, best first, and samples where there is one run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microgpt.errors import printable

    console = Console(stderr=True)
    table = Table(title="whole validation set, lowest bits a byte first", title_justify="left")
    for name in ("run", "step", "loss", "perplexity", "bits a byte", "tokens", "parameters"):
        table.add_column(name, justify="left" if name == "run" else "right", overflow="fold")

    def row(name: str, step: str, loss: float, bits: float | None, tokens: str, size: str) -> None:
        shown = "n/a" if bits is None else f"{bits:.4f}"
        table.add_row(escape(name), step, f"{loss:.4f}", f"{math.exp(min(loss, 700)):.2f}", shown, tokens, size)

    for e in found:
        step = e.checkpoint.name.removeprefix("step-").lstrip("0") or "0"
        s = e.score
        row(str(e.folder), step, s.loss, s.bpb, f"{s.tokens:,}", f"{e.parameters:,}")
    first = found[0]
    row("bigram of the best run's data", "", first.baselines.bigram, first.baseline_bpb[1], "", "")
    row("unigram", "", first.baselines.unigram, first.baseline_bpb[0], "", "")
    console.print(table)
    for e in found:
        if e.chat is not None:
            c = e.chat
            console.print(
                f"replies, {e.folder}: {c.ended:.0%} ended by the model, {c.empty:.0%} empty, {c.repeated:.0%} "
                f"repeating, distinct-1 {c.distinct_1:.2f}, distinct-2 {c.distinct_2:.2f}, {c.mean_tokens:.0f} long",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
    if len(found) == 1:
        console.print("[bold]samples[/bold]")
        for text in first.samples[:12]:
            console.print("  " + escape(printable(text)), highlight=False)
    console.print(f"\nwritten: {first.folder / 'evaluation.json'}", highlight=False, soft_wrap=True)
    console.print(f"next:    python -m microgpt.export run={first.folder}", highlight=False, soft_wrap=True)


def main() -> int:
    """Entry point."""
    runtime.prepare_process()
    return stage_main("evaluate", run_evaluate)


if __name__ == "__main__":
    sys.exit(main())
