"""`microgpt chat` in a real terminal, driven by tmux: what a user types and sees."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import END_TURN, Tokenizer

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed: there is no real terminal")


class Terminal:
    """A tmux server of its own with one window of 100 by 30.

    Args:
        folder: where its socket lies and commands run.
    """

    def __init__(self, folder: Path) -> None:
        self._tmux = ["tmux", "-S", str(folder / "socket"), "-f", "/dev/null"]
        self._run("new-session", "-d", "-x", "100", "-y", "30", "-c", str(folder), "env PS1='ready> ' sh")
        self.until("ready>")

    def _run(self, *words: str) -> str:
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, timeout=240, check=True)
        return done.stdout

    def screen(self) -> str:
        """What stands on the screen."""
        return self._run("capture-pane", "-p", "-J")

    def types(self, text: str, enter: bool = True) -> None:
        """Type a text, and Enter."""
        self._run("send-keys", "-l", text)
        if enter:
            self._run("send-keys", "Enter")

    def presses(self, key: str) -> None:
        """Press one key by tmux's name for it."""
        self._run("send-keys", key)

    def until(self, text: str, count: int = 1, seconds: float = 180) -> str:
        """Wait until a text stands on the screen so many times."""
        ends = time.monotonic() + seconds
        while (shown := self.screen()).count(text) < count:
            assert time.monotonic() < ends, f"no {text!r} x {count} on the screen:\n{shown}"
            time.sleep(0.05)
        return shown

    def close(self) -> None:
        """End this server, and with it what runs in it."""
        subprocess.run([*self._tmux, "kill-server"], capture_output=True, timeout=240)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    opened = Terminal(tmp_path)
    yield opened
    opened.close()


def test_a_conversation_in_a_real_terminal(
    tmp_path: Path, terminal: Terminal, plain_bytes: Tokenizer, saying: Any, save_model: Any
) -> None:
    model: GPT = saying(plain_bytes, [*plain_bytes.encode("Helo, yué!"), plain_bytes.control[END_TURN]])
    save_model(tmp_path / "model", model, plain_bytes)
    env = {"MICROGPT_CACHE_DIR": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1", "PYTHONUTF8": "1"}
    words = [sys.executable, "-m", "microgpt.cli", "chat", "--model-dir", "model", "--temperature", "0"]
    told = [f"{k}={shlex.quote(v)}" for k, v in env.items()]
    terminal.types(" ".join([*told, shlex.join([*words, "--repetition-penalty", "1"])]))
    terminal.until("you:")

    terminal.types("Hi there")
    shown = terminal.until("you:", 2)
    assert "you: Hi there" in shown
    assert "bot: Helo, yué!" in shown

    terminal.types("/temperatur")  # a command with a slip
    assert "/temperature" in terminal.until("unknown command /temperatur")
    terminal.until("you:", 3)

    terminal.presses("Up")  # history: the slip, then the message before it
    terminal.presses("Up")
    terminal.until("you: Hi there", 2)
    terminal.presses("BSpace")  # and it can be edited
    terminal.types("e!")
    terminal.until("you: Hi there!")
    terminal.until("Helo, yué!", 2)
    terminal.until("you:", 4)

    terminal.types("/quit")
    terminal.until("ready>", 2)
    assert "Traceback" not in terminal.screen()
    terminal.types("echo code $?")
    terminal.until("code 0")
