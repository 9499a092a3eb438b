"""Commands that run in turn for seconds at a time: each is held, with all that it started, but for its own turns.

A machine that is slow for minutes is so for every side, and what takes long to start starts once.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what is held is ended then too


class Held:
    """A command that goes on only in its turns.

    Args:
        words: after the interpreter.
        home: where it runs.
    """

    def __init__(self, words: list[str], home: Path) -> None:
        self.home = home
        self._errors = home / "errors"
        with open(self._errors, "wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, *words], cwd=home, stdout=subprocess.DEVNULL, stderr=errors,
                env=os.environ | {"HF_HUB_OFFLINE": "1"},
            )  # fmt: skip
        atexit.register(self.end)  # nothing that is held stays behind when a side fails or the user gives up

    def until(self, seen: Callable[[], bool], limit: float) -> float:
        """Go on until something is seen, then hold.

        Returns:
            Seconds of the turn.

        Raises:
            SystemExit: the command ended before, or `limit` seconds did.
        """
        started = time.perf_counter()
        self._tell(signal.SIGCONT)
        while not seen():
            if self._process.poll() is not None and not seen():
                raise SystemExit(f"{self._process.args} ended:\n{self._errors.read_text()[-2000:]}")
            if time.perf_counter() - started > limit:
                self.end()
                raise SystemExit(f"{self._process.args} did not get there in {limit:.0f} s")
            time.sleep(0.01)
        spent = time.perf_counter() - started
        self._tell(signal.SIGSTOP)
        return spent

    def end(self) -> None:
        """Kill it, if it is still there."""
        if self._process.poll() is None:
            self._tell(signal.SIGKILL)
            self._process.wait()

    def _tell(self, what: signal.Signals) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            top = psutil.Process(self._process.pid)
            for process in (top, *top.children(recursive=True)):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(what)
