"""Stages as whole processes, without paying for the import of torch and Lightning at each start.

One process imports what every stage imports and waits; for each call it forks, and the child runs
`python -m microgpt.<stage>` as `runpy` does for Python itself: its own folder, environment, arguments, standard
streams, signals and exit code.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Warm = Callable[..., "subprocess.CompletedProcess[str]"]

WAITING = """
import atexit, json, os, runpy, sys, traceback
from microgpt.runtime import prepare_process
prepare_process()
import torch, microgpt.training.lightning, hydra, datasets
import microgpt.training.fit, microgpt.training.run, microgpt.data.mixture, microgpt.checkpoints.model
for line in sys.stdin:
    job = json.loads(line)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        for number, path in ((0, job["in"]), (1, job["out"]), (2, job["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags), number)
        os.chdir(job["cwd"])
        os.environ.clear()
        os.environ.update(job["env"])
        sys.argv = ["-m", *job["words"]]
        sys.path[0] = job["cwd"]
        code = 0
        try:
            runpy.run_module("microgpt." + job["name"], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        except BaseException:
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking the interpreter down would touch, and so copy, every page of the parent's
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
"""

SMALL = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"),
    *("data.batch_size=4", "trainer.max_steps=40", "trainer.eval_interval=10", "sampling.num_samples=2"),
    *("sampling.max_new_tokens=12", "device=cpu", "device.threads=1"),
]


@pytest.fixture(scope="session")
def small() -> list[str]:
    """The overrides of a run of a second."""
    return list(SMALL)


@pytest.fixture(scope="session")
def warm_anywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Run a stage in a folder that is named; its exit code must be as expected."""
    streams = tmp_path_factory.mktemp("streams")
    (streams / "in").write_text("")
    waiting = subprocess.Popen(
        [sys.executable, "-c", WAITING],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def run(name: str, *words: str, cwd: Path, code: int = 0, env: dict[str, str] | None = None) -> Any:
        assert waiting.stdin is not None
        assert waiting.stdout is not None
        job = {
            "name": name,
            "words": words,
            "cwd": str(cwd),
            "in": str(streams / "in"),
            "out": str(streams / "out"),
            "err": str(streams / "err"),
            "env": {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        }
        waiting.stdin.write(json.dumps(job) + "\n")
        waiting.stdin.flush()
        returned = int(waiting.stdout.readline())
        out, err = ((streams / n).read_text(encoding="utf-8", errors="replace") for n in ("out", "err"))
        assert returned == code, f"{name} {words}: exit {returned}\n{out}\n{err}"
        assert "Traceback" not in err
        return subprocess.CompletedProcess(words, returned, out, err)

    yield run
    waiting.stdin.close()  # type: ignore[union-attr]
    waiting.wait(30)


@pytest.fixture
def warm(warm_anywhere: Warm, tmp_path: Path) -> Warm:
    """Run a stage in the test's own folder, without MLflow unless `tracking=` is among the words."""

    def run(name: str, *words: str, cwd: Path = tmp_path, **more: Any) -> Any:
        off = [] if any(w.startswith("tracking=") for w in words) else ["tracking=off"]
        return warm_anywhere(name, *words, *off, cwd=cwd, **more)

    return run


@pytest.fixture(scope="session")
def trained(warm_anywhere: Warm, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that two small runs were started in: `outputs/one` and the better `outputs/two`."""
    home = tmp_path_factory.mktemp("trained")
    for name, steps in (("one", "40"), ("two", "160")):
        words = [*SMALL, f"trainer.max_steps={steps}", "trainer.eval_batches=0", "tracking=off"]
        warm_anywhere("train", *words, f"hydra.run.dir=outputs/{name}", cwd=home)
    return home
