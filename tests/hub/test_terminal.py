"""`microgpt hub` in a real terminal, driven by tmux: what a person presses and sees."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed: there is no real terminal"),
]


class Terminal:
    """A tmux server of its own with one window of 100 by 30.

    Args:
        folder: where its socket lies and commands run.
    """

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-u", "-S", str(folder / "socket"), "-f", "/dev/null"]
        self._run(
            "new-session",
            "-d",
            "-x",
            "100",
            "-y",
            "30",
            "-c",
            str(folder),
            "env -u COLUMNS -u LINES PS1='ready> ' sh",
        )
        self.until("ready>")

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, timeout=240, check=True)
        return done.stdout

    def screen(self, *more: str) -> str:
        """What stands on the screen."""
        return self._run("capture-pane", "-p", *more)

    def types(self, text: str) -> None:
        """Type a text."""
        self._run("send-keys", "-l", text)

    def presses(self, *keys: str) -> None:
        """Press keys by tmux's names for them."""
        self._run("send-keys", *keys)

    def resize(self, width: int, height: int) -> None:
        """Give the window another size."""
        self._run("resize-window", "-x", str(width), "-y", str(height))

    def until(self, text: str, seconds: float = 180) -> str:
        """Wait until a text stands on the screen."""
        ends = time.monotonic() + seconds
        while text not in (shown := self.screen()):
            assert time.monotonic() < ends, f"no {text!r} on the screen:\n{shown}"
            time.sleep(0.05)
        return shown

    def until_gone(self, text: str, seconds: float = 180) -> None:
        """Wait until a text stands on the screen no more."""
        ends = time.monotonic() + seconds
        while text in (shown := self.screen()):
            assert time.monotonic() < ends, f"{text!r} is still on the screen:\n{shown}"
            time.sleep(0.05)

    def close(self) -> None:
        """End this server, and with it what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=240)


@pytest.fixture
def terminal(runs: Path) -> Iterator[Terminal]:
    opened = Terminal(runs)
    yield opened
    opened.close()


def start(terminal: Terminal, folder: Path, *words: str, **env: str) -> None:
    env = {"MICROGPT_CACHE_DIR": str(folder / "cache"), "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **env}
    told = [f"{k}={shlex.quote(v)}" for k, v in env.items()]
    terminal.types(" ".join([*told, shlex.join([sys.executable, "-m", "microgpt.cli", "hub", *words])]))
    terminal.presses("Enter")


def test_a_visit_to_every_tab(terminal: Terminal, runs: Path) -> None:
    start(terminal, runs)
    shown = terminal.until("This run")
    assert "python -m microgpt.train" in shown
    terminal.presses("Tab")
    terminal.until("generalization gap")
    terminal.presses("Enter", "g")
    terminal.until("smooth 0.9 log")
    terminal.presses("Escape")
    terminal.until("validation loss")
    terminal.presses("l")
    terminal.until("61 lines")
    terminal.presses("Tab")
    terminal.until("3 of 3 runs")
    terminal.presses("Space", "Space", "c")
    terminal.until("model.n_layer")
    terminal.presses("y")
    terminal.until("copied the page")
    terminal.presses("q")
    terminal.until_gone("esc closes")
    terminal.presses("Tab")
    terminal.until("10-00-00-alpha step-000040")
    terminal.presses("Enter")
    terminal.until("top-k 20")
    terminal.until("11-00-00-beta step-000040")
    terminal.presses("N", "N", "N", "N")
    terminal.until("min 0")
    terminal.presses("Enter")
    terminal.types("Hi")
    terminal.until("Hi")
    terminal.presses("Enter")
    terminal.until("bot Bye.")
    for width, height in ((40, 20), (200, 50), (100, 30)):
        terminal.resize(width, height)
        terminal.until("bot Bye.")
    terminal.presses("Escape")
    time.sleep(0.5)  # a key right behind it would be read as Alt and that key
    terminal.presses("?")
    terminal.until("top-k down")
    terminal.presses("q")
    terminal.until_gone("esc closes")
    terminal.presses("q")
    terminal.until("ready>")
    terminal.types("echo code $?")
    terminal.presses("Enter")
    assert "Traceback" not in terminal.until("code 0")


def test_without_colour_or_unicode(terminal: Terminal, runs: Path) -> None:
    start(terminal, runs, "latest", "--ascii", NO_COLOR="1")
    shown = terminal.until("generalization gap")
    assert shown.isascii()
    coloured = terminal.screen("-e")
    assert "\x1b[38" not in coloured
    assert "\x1b[48" not in coloured
    assert "\x1b[3" not in coloured.replace("\x1b[39m", "")
    terminal.presses("q")
    terminal.until("ready>")


def test_without_a_terminal_it_says_so(runs: Path) -> None:
    words = [sys.executable, "-m", "microgpt.cli", "hub"]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=240, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the hub needs a terminal")
    for more in (["--tab", "x"], ["--theme", "x"]):
        done = subprocess.run([*words, *more], capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 2
        assert "there is no such" in done.stderr
