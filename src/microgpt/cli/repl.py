"""The conversation in a terminal: `microgpt chat`."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.config.schema import SamplingConfig
from microgpt.errors import MicrogptError, UsageError, visible

HELP = """/help               this list
/quit               leave (also Ctrl-D)
/clear              forget the conversation
/regenerate         another reply to the last message
/system TEXT        set the system turn (without TEXT: remove it)
/temperature VALUE  0 takes the likeliest token; without VALUE: show it
/save FILE          write the conversation as JSONL"""
WORDS = ("/help", "/quit", "/clear", "/regenerate", "/system", "/temperature", "/save")


class Chat:
    """A conversation and what can be done with it.

    Args:
        engine: decodes the model.
        tokenizer: its tokenizer.
        sampling: how replies are drawn.
        write: prints a piece of text at once.
    """

    def __init__(self, engine: Any, tokenizer: Any, sampling: SamplingConfig, write: Any) -> None:
        self.engine, self.tokenizer, self.sampling, self.write = engine, tokenizer, sampling, write
        self.turns: list[tuple[str, str]] = []
        self.system = ""
        self.drawn = 0

    def reply(self) -> None:
        """Write the assistant's reply to the last user turn and remember it."""
        from microgpt.inference.chat import Reply, stream_reply

        turns = [("system", self.system), *self.turns] if self.system else self.turns
        sampling = replace(self.sampling, seed=self.sampling.seed + self.drawn)
        self.drawn += 1
        state = Reply()
        told = False

        def notice() -> None:
            nonlocal told
            if state.tokens_dropped and not told:
                told = True
                self.write(f"({state.turns_dropped} old turns, {state.tokens_dropped} tokens, no longer fit)\n")

        try:
            for piece in stream_reply(self.engine, self.tokenizer, turns, sampling, state):
                notice()
                self.write(visible(piece))
            notice()  # of an empty reply too
        except KeyboardInterrupt:
            self.write(" (stopped)")
        self.write("\n" if state.finish != "length" else " (cut: max_new_tokens)\n")
        self.turns.append(("assistant", state.text))

    def command(self, line: str) -> bool:
        """Do what a line that begins with / says; False ends the conversation."""
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word == "/quit":
            return False
        if word == "/help":
            self.write(HELP + "\n")
        elif word == "/clear":
            self.turns = []
            self.write("(forgotten)\n")
        elif word == "/system":
            self.system = rest
            self.write("(system turn set)\n" if rest else "(no system turn)\n")
        elif word == "/temperature":
            self._temperature(rest)
        elif word == "/regenerate":
            if self.turns and self.turns[-1][0] == "assistant":
                former = self.turns.pop()
                try:
                    self.reply()
                except UsageError as error:  # a system turn set meanwhile can leave no room
                    self.turns.append(former)
                    self.write(f"({error})\n")
            else:
                self.write("(there is no reply yet)\n")
        elif word == "/save":
            self._save(rest)
        else:
            from microgpt.config.build import nearest

            self.write(f"unknown command {word}{nearest(word, WORDS)}; /help lists them\n")
        return True

    def _temperature(self, text: str) -> None:
        try:
            if text:
                value = float(text)
                if not 0 <= value <= 100:
                    raise ValueError
                self.sampling = replace(self.sampling, temperature=value)
            self.write(f"(temperature {self.sampling.temperature:g})\n")
        except ValueError:
            self.write("(give a number from 0 to 100)\n")

    def _save(self, name: str) -> None:
        if not name:
            self.write("(give a file: /save FILE)\n")
            return
        turns = [("system", self.system), *self.turns] if self.system else self.turns
        messages = [{"role": role, "content": text} for role, text in turns]
        try:
            files.write_text(Path(name).expanduser(), json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            self.write(f"(saved {len(messages)} turns to {name})\n")
        except (MicrogptError, OSError, ValueError) as error:
            self.write(f"({error})\n")

    def message(self, text: str) -> None:
        """A user turn and its reply; one that does not fit is taken back."""
        self.turns.append(("user", text))
        try:
            self.reply()
        except UsageError as error:
            self.turns.pop()
            self.write(f"({error})\n")


def read_lines() -> Any:
    """Lines as the user types them, with history and editing where there is a terminal."""
    if not sys.stdin.isatty():
        for line in sys.stdin:
            yield line.rstrip("\n")
        return
    try:
        from prompt_toolkit import PromptSession
        from prompt_toolkit.completion import WordCompleter
        from prompt_toolkit.history import FileHistory
    except ImportError:
        while True:
            yield input("you: ")
    folder = files.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    completer = WordCompleter(list(WORDS), sentence=True)
    session: Any = PromptSession(history=FileHistory(str(folder / "chat-history")), completer=completer)
    while True:
        yield session.prompt("you: ", complete_while_typing=False)


def talk(engine: Any, tokenizer: Any, sampling: SamplingConfig) -> None:
    """Talk until /quit or the end of input."""

    def write(text: str) -> None:
        print(text, end="", flush=True)

    chat = Chat(engine, tokenizer, sampling, write)
    shown = sys.stdin.isatty()
    try:
        for line in read_lines():
            text = line.strip()
            if not text:
                continue
            if text.startswith("/"):
                if not chat.command(text):
                    return
                continue
            if shown:
                write("bot: ")
            chat.message(text)
    except (EOFError, KeyboardInterrupt):
        print()
