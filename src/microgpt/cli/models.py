"""Verbs about a model and the machine: generate, info, gpu-check."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from microgpt import errors, runtime
from microgpt.cli.app import (
    LastN,
    MinP,
    MinTokens,
    ModelDir,
    Penalty,
    Stop,
    app,
    load_reference,
    open_reference,
    print_rows,
)


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

    loaded = load_reference(model_dir, device)
    from microgpt.inference.generate import generate as draw

    sampling = SamplingConfig(
        temperature=temperature, top_k=top_k, top_p=top_p, max_new_tokens=max_new_tokens,
        num_samples=num_samples, seed=seed, min_p=min_p, repetition_penalty=repetition_penalty,
        repeat_last_n=repeat_last_n, min_new_tokens=min_new_tokens, stop=stop or [],
    )  # fmt: skip
    for sample in draw(loaded.engine, loaded.tokenizer, sampling, prompt):
        print(errors.visible(sample.prompt + sample.text), flush=True)
    print(f"next: microgpt info --model-dir {model_dir}", file=sys.stderr)


@app.command()
def info(model_dir: ModelDir = "latest") -> None:
    """Say what a model is: shape, tokenizer, scores, data, files."""
    from microgpt.checkpoints.model import described

    print_rows(described(open_reference(model_dir)))
    print(f"next: microgpt generate --model-dir {model_dir}", file=sys.stderr)


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
    print_rows(rows)
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
