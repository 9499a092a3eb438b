"""The small run that all fault tests use, and what must be equal between two of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from microgpt.checkpoints.folder import MANIFEST, find
from microgpt.runs.folder import read_lines, read_metrics, read_run

#: values that hold the time of day or the speed of the machine
CLOCKS = ("perf/", "progress/eta")
#: a run of a second, in which all kinds of state count: dropout's random one, averages, patience, accumulation
RUN = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"),
    *("model.dropout=0.1", "data.batch_size=4", "trainer.accumulate=2", "trainer.max_steps=120"),
    *("trainer.eval_interval=20", "trainer.checkpoint_interval=10", "trainer.patience=50", "trainer.eval_batches=4"),
    *("trainer.steps_per_call=4", "optimizer.ema_decay=0.9", "tracking=off", "device=cpu", "device.threads=1"),
    *("sampling.num_samples=1", "sampling.max_new_tokens=4", "hydra.run.dir=run"),
]

AT_CALL = """
import functools, os, signal
import {module} as module
owner, name, calls = module{owner}, "{name}", 0
real = getattr(owner, name)
@functools.wraps(real)
def call(*args, **more):
    global calls
    calls += 1
    if calls == {number}:
        os.kill(os.getpid(), signal.{signal})
    return real(*args, **more)
setattr(owner, name, call)
"""


def at_call(module: str, name: str, number: int, signal: str = "SIGKILL") -> str:
    """Code that sends its own process a signal before the Nth call of a function of a module."""
    owner, dot, leaf = name.rpartition(".")
    return AT_CALL.format(module=module, owner=dot + owner, name=leaf, number=number, signal=signal)


def tensors(run: Path) -> dict[str, str]:
    """The checksums of the newest checkpoint's weights and optimizer."""
    last = find(run / "checkpoints", "latest")
    names = ("weights.safetensors", "optimizer.safetensors")
    return {"step": last.name, **{n: hashlib.sha256((last / n).read_bytes()).hexdigest() for n in names}}


def assert_equal(expected: Path, run: Path) -> None:
    """Final tensors, every logged metric, the best score and the guards' state are the same to the bit."""
    assert tensors(run) == tensors(expected), f"{tensors(run)} is not {tensors(expected)}"
    left, right = (
        {key: values for key, values in read_metrics(r).items() if not key.startswith(CLOCKS)}
        for r in (expected, run)
    )
    assert set(left) == set(right)
    for key in left:
        assert left[key] == right[key], f"{key}: {sorted(left[key].items() ^ right[key].items())[:6]}"
    assert read_run(run)["best_val_loss"] == read_run(expected)["best_val_loss"]
    a, b = (
        json.loads((find(r / "checkpoints", "latest") / "training_state.json").read_text()) for r in (expected, run)
    )
    for state in (a, b):
        for clock in ("elapsed_s", "evaluating_s"):
            state["progress"].pop(clock)
    assert a["progress"] == b["progress"]


def log(run: Path) -> str:
    return (run / "train.log").read_text()


def logged_steps(run: Path) -> list[int]:
    return [int(line["step"]) for _, line in read_lines(run / "metrics.jsonl")]


def torn(checkpoints: Path) -> list[str]:
    """What is wrong with the checkpoints that can be seen, found without the package's own code."""
    wrong: list[str] = []
    for path in checkpoints.glob("step-*"):
        try:
            listed = json.loads((path / MANIFEST).read_text())["files"]
            for name, entry in listed.items():
                if hashlib.sha256((path / name).read_bytes()).hexdigest() != entry["sha256"]:
                    wrong.append(f"{path.name}/{name} is not what was written")
        except (OSError, ValueError, KeyError) as error:
            wrong.append(f"{path.name}: {error!r}")
    return wrong
