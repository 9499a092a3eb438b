"""`microgpt VERB`: thin, and quick to start. No verb imports torch, Lightning or MLflow before it must."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from microgpt import errors, runtime

app = typer.Typer(
    name="microgpt",
    help="Train small GPTs, look into them, talk to them and export them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
runs_app = typer.Typer(help="List, show and clean runs.", no_args_is_help=False, invoke_without_command=True)
app.add_typer(runs_app, name="runs")

ModelDir = Annotated[
    str, typer.Option("--model-dir", "-m", help="A run, a checkpoint, a model folder, latest or best.")
]

Temperature = Annotated[float, typer.Option(min=0, max=100, help="0 takes the likeliest token.")]
MaxTokens = Annotated[int, typer.Option(min=1, max=1_000_000, help="Most tokens of a reply.")]
TopK = Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(min=0.000001, max=1, help="Keep this much probability.")]
Penalty = Annotated[float, typer.Option(min=0.01, max=10, help="Makes recent tokens less likely; 1 is off.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
MinP = Annotated[float, typer.Option(min=0, max=0.999999, help="Drop tokens below this share of the likeliest's.")]
LastN = Annotated[int, typer.Option(min=0, help="How many recent tokens the penalty looks at.")]
MinTokens = Annotated[int, typer.Option(min=0, help="Tokens before the end may come.")]
Stop = Annotated[list[str] | None, typer.Option(help="Text that ends a reply; may be given again.")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"microgpt {version('microgpt')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,
) -> None:
    """Options of every verb."""
    if debug:
        import os

        os.environ["MICROGPT_DEBUG"] = "1"


def _opened(reference: str) -> Any:
    """The model that a reference means, opened and checked."""
    from microgpt.checkpoints.model import open_model
    from microgpt.runs.find import model_path

    return open_model(model_path(reference))


@app.command()
def generate(
    model_dir: ModelDir = "latest",
    prompt: Annotated[str, typer.Option(help="Text to go on from; empty starts a new document.")] = "",
    num_samples: Annotated[int, typer.Option(min=1, max=10_000, help="How many texts.")] = 5,
    max_new_tokens: Annotated[int, typer.Option(min=1, max=1_000_000, help="Most tokens of a text.")] = 200,
    temperature: Annotated[float, typer.Option(min=0, max=100, help="0 takes the likeliest token.")] = 0.7,
    top_k: Annotated[int, typer.Option(min=0, help="Keep the k likeliest tokens; 0 keeps all.")] = 40,
    top_p: Annotated[float, typer.Option(min=0.000001, max=1, help="Keep this much probability.")] = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    repeat_last_n: LastN = 64,
    min_new_tokens: MinTokens = 0,
    stop: Stop = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed; text i is drawn with seed + i.")] = 42,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Write text with a trained model."""
    from microgpt.config.schema import SamplingConfig

    runtime.prepare_process()
    opened = _opened(model_dir)
    from microgpt.checkpoints.model import load_weights
    from microgpt.inference.generate import generate as draw

    sampling = SamplingConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens,
        num_samples=num_samples, seed=seed, min_p=min_p, repetition_penalty=repetition_penalty,
        repeat_last_n=repeat_last_n, min_new_tokens=min_new_tokens, stop=stop or [],
    )  # fmt: skip
    model = load_weights(opened, runtime.choose_device(device))
    for sample in draw(model, opened.tokenizer, sampling, prompt):
        print(errors.visible(sample.prompt + sample.text), flush=True)
    print(f"next: microgpt info --model-dir {model_dir}", file=sys.stderr)


@app.command()
def info(model_dir: ModelDir = "latest") -> None:
    """Say what a model is: shape, tokenizer, scores, data, files."""
    from microgpt.checkpoints.tensors import read_header
    from microgpt.files import folder_bytes, human_bytes

    opened = _opened(model_dir)
    header, _ = read_header(opened.path / "weights.safetensors")
    m, meta = opened.config, opened.meta
    parameters = sum(_product(shape) for _, shape, _, _ in header.values())
    rows = {
        "folder": str(opened.path),
        "parameters": f"{parameters:,} in {len(header)} tensors, {meta.get('dtype', 'f32')}",
        "shape": f"{m.n_layer} layers x {m.n_embd} wide x {m.n_head} heads, context {m.block_size}",
        "parts": f"{m.norm}, {m.position} positions, {m.mlp} MLP{', qk-norm' if m.qk_norm else ''}",
        "tokenizer": f"{opened.tokenizer.kind}, {opened.vocab_size:,} tokens; control: "
        + " ".join(opened.tokenizer.control),
        "trained": f"{meta.get('step', 0):,} steps, {meta.get('tokens', 0):,} tokens",
        **{k: f"{v:.4f}" for k, v in meta.get("val", {}).items() if isinstance(v, float)},
        "data": ", ".join(Path(s["path"]).name for s in meta.get("data", {}).get("sources", [])) or "unknown",
        "size": human_bytes(folder_bytes(opened.path)),
    }
    _print_rows(rows)
    print(f"next: microgpt generate --model-dir {model_dir}", file=sys.stderr)


def _product(shape: tuple[int, ...]) -> int:
    count = 1
    for dim in shape:
        count *= dim
    return count


def _print_rows(rows: dict[str, str]) -> None:
    width = max(map(len, rows)) + 2
    for name, value in rows.items():
        print(f"{name:<{width}}{errors.printable(value)}")


@app.command("gpu-check")
def gpu_check() -> None:
    """Say which devices there are, with driver and toolkit, and what to do about a missing one."""
    runtime.prepare_process()
    import torch

    rows = {"torch": torch.__version__, "built for CUDA": torch.version.cuda or "no (a CPU build)"}
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            p = torch.cuda.get_device_properties(i)
            rows[f"cuda:{i}"] = f"{p.name}, {p.total_memory / 2**30:.0f} GiB, compute {p.major}.{p.minor}"
    rows["driver"] = _driver()
    rows["Apple GPU"] = "yes" if torch.backends.mps.is_available() else "no"
    rows["cpu"] = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    _print_rows(rows)
    if torch.cuda.is_available():
        advice = "python -m microgpt.train device=cuda"
    elif rows["driver"] != "none found":
        advice = "the driver is there: install a CUDA build of torch (https://pytorch.org/get-started)"
    else:
        advice = "no GPU is usable: python -m microgpt.train device=cpu"
    print(f"next: {advice}")


def _driver() -> str:
    import shutil
    import subprocess

    if not shutil.which("nvidia-smi"):
        return "none found"
    words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=20)
    return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else "none found"


@runs_app.callback()
def runs(context: typer.Context) -> None:
    """List all runs below ./outputs."""
    if context.invoked_subcommand is None:
        list_runs()


@runs_app.command("list")
def list_runs() -> None:
    """List all runs below ./outputs, oldest first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from microgpt.files import folder_bytes, human_bytes
    from microgpt.runs.find import all_runs

    found = all_runs()
    if not found:
        print("there is no run in ./outputs yet\nnext: python -m microgpt.train")
        return
    table = Table()
    for name in ("run", "status", "steps", "validation", "bits a byte", "size"):
        table.add_column(name, overflow="fold", justify="left" if name in ("run", "status") else "right")
    for run in found:
        loss, bits = (f"{v:.4f}" if v != float("inf") else "" for v in (run.val_loss, run.val_bpb))
        steps = f"{run.facts.get('steps', 0):,} / {run.facts.get('max_steps', 0):,}"
        table.add_row(escape(str(run.path)), run.status, steps, loss, bits, human_bytes(folder_bytes(run.path)))
    Console().print(table)
    print(f"next: microgpt runs show {found[-1].path}")


@runs_app.command("show")
def show_run(run: Annotated[str, typer.Argument(help="A run folder, MLflow id, latest or best.")] = "latest") -> None:
    """Show one run: how it ended, its data, scores, checkpoints and settings."""
    from microgpt.checkpoints.folder import checkpoints_in
    from microgpt.config.build import flat
    from microgpt.config.compose import compose
    from microgpt.runs.find import find_run
    from microgpt.runs.folder import read_config

    found = find_run(run)
    f = found.facts
    rows = {
        "run": str(found.path),
        "status": found.status + (f" ({f['error']})" if f.get("error") and found.status != "FINISHED" else ""),
        "started": str(f.get("started", "")),
        "command": str(f.get("command", "")),
        "commit": str(f.get("git", {}).get("commit", ""))
        + (" with changes" if f.get("git", {}).get("dirty") else ""),
        "steps": f"{f.get('steps', 0):,} of {f.get('max_steps', 0):,}",
        "parameters": f"{f.get('parameters', 0):,}",
        "validation": f"loss {found.val_loss:.4f}, {found.val_bpb:.4f} bits a byte at step {f.get('best_step', 0)}",
        "data": ", ".join(s["path"] for s in f.get("data", {}).get("sources", [])),
        "checkpoints": ", ".join(p.name for _, p in checkpoints_in(found.path / "checkpoints")) or "none",
        "mlflow run": found.mlflow_id or "none",
    }
    _print_rows(rows)
    default = flat(compose([]))
    saved: dict[str, Any] = {}
    for key, value in read_config(found.path).items():
        saved.update({f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value})
    print("\nsettings that differ from the defaults:")
    for key, value in saved.items():
        if key in default and default[key] != value:
            print(f"  {key}={errors.printable(str(value))}")
    print(f"\nnext: python -m microgpt.evaluate run={found.path}")


@runs_app.command("clean")
def clean_runs(
    runs: Annotated[list[str] | None, typer.Argument(help="Run folders; none: every run that failed.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete run folders, saying first how many bytes that frees. A run that is going on is never touched."""
    import shutil

    from microgpt.files import folder_bytes, human_bytes, is_locked
    from microgpt.runs.find import all_runs, find_run

    failed = [run for run in all_runs() if run.status == "FAILED"]
    chosen = [find_run(r) for r in runs] if runs else failed
    chosen = [run for run in chosen if not is_locked(run.path)]
    total = 0
    for run in chosen:
        size = folder_bytes(run.path)
        total += size
        print(f"{human_bytes(size):>10}  {run.status:<9} {errors.printable(str(run.path))}")
    if not chosen:
        print("nothing to delete\nnext: microgpt runs")
        return
    print(f"{human_bytes(total):>10}  in {len(chosen)} runs")
    if dry_run:
        print("next: microgpt runs clean --yes (deletes these)")
        return
    if not yes and not (sys.stdin.isatty() and typer.confirm("delete them?")):
        print("nothing was deleted; say --yes to delete")
        return
    for run in chosen:
        shutil.rmtree(run.path, ignore_errors=True)
    print(f"freed {human_bytes(total)}\nnext: microgpt runs")


@app.command()
def train(
    input: Annotated[str, typer.Option("--input", help="Text (a document a line) or JSONL.")] = "",
    output: Annotated[str, typer.Option(help="The run folder.")] = "output",
    steps: Annotated[int, typer.Option(min=1, help="Steps; with --resume: additional ones.")] = 5000,
    lr: Annotated[float, typer.Option(help="Peak learning rate.")] = 0.01,
    warmup_steps: Annotated[int, typer.Option(min=0, help="Steps of warm-up.")] = 200,
    seed: Annotated[int, typer.Option(min=0, help="Seed.")] = 42,
    chat: Annotated[bool, typer.Option("--chat", help="The input holds conversations.")] = False,
    skip_long: Annotated[bool, typer.Option("--skip-long", help="Leave out what does not fit the context.")] = False,
    n_embd: Annotated[int, typer.Option(help="Width.")] = 64,
    n_head: Annotated[int, typer.Option(help="Heads.")] = 4,
    n_layer: Annotated[int, typer.Option(help="Layers.")] = 2,
    block_size: Annotated[int, typer.Option(help="Context, in tokens.")] = 256,
    batch_size: Annotated[int, typer.Option(help="Rows of a batch.")] = 8,
    vocab_size: Annotated[int, typer.Option(help="Tokens of the vocabulary.")] = 4096,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps or metal.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="f32, bf16 or f16.")] = "f32",
    resume: Annotated[str, typer.Option(help="A run folder to go on with.")] = "",
    checkpoint_every: Annotated[int, typer.Option(min=0, help="Steps between checkpoints; 0: with validations.")] = 0,
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Train a model; the same as `python -m microgpt.train`, whose command is printed."""
    device = "mps" if device == "metal" else device
    words = [f"device={device}"]
    if resume:
        # model, rates, batch and data come from the checkpoint; what is given beside it is checked against it
        words += [_word("resume", resume), f"trainer.additional_steps={steps}"]
        words += [_word("data.path", input)] if input else []
        if chat:
            from microgpt.inference.chat import require_chat

            require_chat(_opened(resume).tokenizer)
    else:
        if chat and input:
            _require_conversations(input)
            words += [f"data.format={_chat_format(input)}"] if _chat_format(input) != "auto" else []
        words += [_word("data.path", input)] if input else ["data=conversations"] if chat else []
        words += [f"data.skip_long={str(skip_long).lower()}", f"data.batch_size={batch_size}"]
        words += [f"trainer.max_steps={steps}", f"optimizer.learning_rate={lr}", f"seed={seed}"]
        words += [f"optimizer.warmup_steps={warmup_steps}", f"model.n_embd={n_embd}", f"model.n_head={n_head}"]
        words += [f"model.n_layer={n_layer}", f"model.block_size={block_size}", f"tokenizer.vocab_size={vocab_size}"]
        words += [f"device.precision={dtype}", _word("hydra.run.dir", output)]
        words += [f"trainer.checkpoint_interval={checkpoint_every}"] if checkpoint_every else []
    words += override or []
    _run_stage("train", words)


def _word(key: str, value: str) -> str:
    """key=value as Hydra reads it, whatever characters the value has."""
    import re

    if re.fullmatch(r"[\w./:@~+-]*", value):
        return f"{key}={value}"
    quoted = re.sub(r"(\\*)'", r"\1\1\\'", value)
    tail = len(quoted) - len(quoted.rstrip("\\"))
    return f"{key}='{quoted}{chr(92) * tail}'"


def _require_conversations(path: str) -> None:
    """Refuse data without a conversation where the user says that it holds some.

    Raises:
        DataError: there is none.
    """
    from microgpt.config.schema import DataConfig
    from microgpt.data.documents import BadRows, read_documents
    from microgpt.data.sources import find_sources

    data, bad = DataConfig(path=[path], format=_chat_format(path)), BadRows()
    if not any(d.turns for d in read_documents(find_sources(data), data, bad)):
        bad.refuse()
        raise errors.DataError(f"{path} holds no conversation", "leave --chat out, or give JSONL of {role, content}")


def _chat_format(path: str) -> str:
    """Conversations in a file are JSONL whatever it is called."""
    return "jsonl" if Path(path).is_file() and Path(path).suffix not in (".jsonl", ".parquet") else "auto"


def _run_stage(stage: str, words: list[str]) -> None:
    """Run a stage in this process, after saying which command that is."""
    import importlib
    import shlex

    print(f"$ python -m microgpt.{stage} {shlex.join(words)}", file=sys.stderr)
    module = importlib.import_module(f"microgpt.{stage}" if stage != "export" else "microgpt.export.__main__")
    sys.argv = [f"microgpt.{stage}", *words]
    raise typer.Exit(module.main())


@app.command("validate-dataset")
def validate_dataset(
    path: Annotated[str, typer.Argument(help="A file, folder or glob.")],
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Check a data set: path, number of records, count by kind, every bad row."""
    _run_stage("validate", [_word("data.path", path), *(override or [])])


@app.command()
def export(
    output: Annotated[str, typer.Option(help="Folder to write.")] = "",
    model_dir: ModelDir = "latest",
    half: Annotated[bool, typer.Option("--half", help="Weights in f16.")] = False,
    override: Annotated[list[str] | None, typer.Argument(help="Further key=value overrides.")] = None,
) -> None:
    """Export a model; the same as `python -m microgpt.export`."""
    words = [_word("run", model_dir), f"dtype={'f16' if half else 'f32'}"]
    words += [_word("output", output)] if output else []
    _run_stage("export", [*words, *(override or [])])


def default_chat_model() -> Path:
    """The model to talk to when none is named: the user's own, the registry's best, the newest chat run.

    Raises:
        ModelError: there is none.
    """
    import json

    from microgpt.runs.find import all_runs, model_path

    own = Path.home() / ".config" / "microgpt" / "default-chat-model"
    if own.exists():
        return own
    if Path("mlruns/mlflow.db").exists():
        from contextlib import suppress

        from microgpt.config.schema import TrackingConfig
        from microgpt.tracking.registry import registered

        with suppress(errors.ModelError):
            return registered("models:/microgpt@best", TrackingConfig())
    for run in reversed(all_runs()):
        try:
            path = model_path(str(run.path))
            if "<end_turn>" in json.loads((path / "meta.json").read_text()).get("special_tokens", {}):
                return path
        except (errors.MicrogptError, OSError, ValueError):
            continue
    raise errors.ModelError("there is no chat model yet", "make one with `make chat-model`, or name one")


def _chat_model(reference: str, device: str) -> tuple[Any, Any]:
    """(model, tokenizer) to talk to."""
    runtime.prepare_process()
    from microgpt.checkpoints.model import load_weights, open_model
    from microgpt.inference.chat import require_chat
    from microgpt.runs.find import model_path

    if reference.startswith("models:/"):
        from microgpt.config.schema import TrackingConfig
        from microgpt.tracking.registry import registered

        path = registered(reference, TrackingConfig())
    else:
        path = model_path(reference) if reference else default_chat_model()
    opened = open_model(path)
    require_chat(opened.tokenizer)
    return load_weights(opened, runtime.choose_device(device)), opened.tokenizer


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
    from microgpt.repl import talk

    model, tokenizer = _chat_model(model_dir, device)
    if sys.stdin.isatty():
        print("/help lists the commands, /quit leaves", file=sys.stderr)
    talk(
        model,
        tokenizer,
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
    loaded, tokenizer = _chat_model(model, device)
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
    reply = reply_to(loaded, tokenizer, [("user", text)], sampling)
    if as_json:
        facts = {"role": "assistant", "content": reply.text, "finish": reply.finish, "tokens": reply.tokens}
        print(json.dumps({**facts, "tokens_dropped": reply.tokens_dropped}, ensure_ascii=False))
    else:
        print(errors.visible(reply.text))


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
    uri: Annotated[str, typer.Option(help="Tracking store; empty: MLFLOW_TRACKING_URI, then ./mlruns.")] = "",
) -> None:
    """Open the MLflow UI on what was trained, on this machine only."""
    from microgpt.tracking.ui import serve_ui

    raise typer.Exit(serve_ui(uri, port))


def main() -> None:
    """Entry point of the `microgpt` command."""
    runtime.quiet_libraries()

    def run() -> None:
        app(standalone_mode=True)

    sys.exit(errors.guarded(run))


if __name__ == "__main__":
    main()
