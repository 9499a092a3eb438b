"""Stages as real processes that can be killed, without paying for the imports of torch and Lightning at each start.

One process imports what a training imports and waits; for each job it forks, and the child runs
`python -m microgpt.<stage>` with its own folder, arguments, streams and exit code. Before that it may run code of the
test's, which is how faults get into it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WAITING = """
import atexit, json, os, runpy, signal, sys, traceback
from microgpt.runtime import prepare_process
prepare_process()
import torch, microgpt.training.lightning, hydra, datasets
import microgpt.training.fit, microgpt.training.run, microgpt.data.mixture, microgpt.checkpoints.model
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        _, status = os.waitpid(job["wait"], 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
        continue
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setsid()
        for number, path in ((0, os.devnull), (1, job["out"]), (2, job["err"])):
            flags = os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            os.dup2(os.open(path, flags), number)
        os.chdir(job["cwd"])
        os.environ.update(job["env"])
        sys.argv = ["-m", *job["words"]]
        sys.path[0] = job["cwd"]
        code = 0
        try:
            exec(compile(job["before"], "<before>", "exec"), {})
            runpy.run_module("microgpt." + job["name"], run_name="__main__", alter_sys=True)
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
        except BaseException:
            traceback.print_exc()
            code = 1
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
"""


@dataclass
class Child:
    """A stage at work."""

    server: Warm
    pid: int
    out: Path
    err: Path

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Its exit code, -9 where it was killed."""
        return int(self.server.ask({"wait": self.pid}))

    @property
    def said(self) -> str:
        """Everything that it printed."""
        return "".join(p.read_text(encoding="utf-8", errors="replace") for p in (self.out, self.err) if p.exists())


class Warm:
    """The process that forks the children."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        path = [str(source)] if source else []
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        env["PYTHONPATH"] = os.pathsep.join([*path, *filter(None, [os.environ.get("PYTHONPATH", "")])])
        if source:  # what a weakened copy leaves behind is no one else's
            env["MICROGPT_CACHE_DIR"] = str(source / "cache")
        self._folder, self._count = folder, 0
        self._process = subprocess.Popen(
            [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def ask(self, job: dict[str, Any]) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return self._process.stdout.readline()

    def start(self, name: str, *words: str, cwd: Path, before: str = "", env: dict[str, str] | None = None) -> Child:
        """Start a stage; `before` runs in it first."""
        self._count += 1
        out, err = (self._folder / f"{self._count}.{kind}" for kind in ("out", "err"))
        streams = {"out": str(out), "err": str(err)}
        job = {"name": name, "words": words, "cwd": str(cwd), "before": before, "env": env or {}, **streams}
        return Child(self, int(self.ask(job)), out, err)

    def run(
        self, name: str, *words: str, cwd: Path, code: int = 0, before: str = "", env: dict[str, str] | None = None
    ) -> str:
        """Run a stage to its end; the exit code must be as expected. Returns what it printed."""
        child = self.start(name, *words, cwd=cwd, before=before, env=env)
        returned = child.wait()
        assert returned == code, f"{name} {words}: exit {returned}\n{child.said}"
        assert "Traceback" not in child.said, child.said
        return child.said

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)


@contextmanager
def warm_process(folder: Path, source: Path | None = None) -> Iterator[Warm]:
    """A `Warm`, of the package or of another copy of its source."""
    made = Warm(folder, source)
    try:
        yield made
    finally:
        made.close()
