"""What the tests of chat share: a tokenizer that knows conversations, and models whose replies are known."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import train_bpe

torch.set_num_threads(1)

WriteRows = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """Write rows as JSONL; a text stands as it is, as the line that it is."""

    def write(*rows: Any, name: str = "talks.jsonl") -> Path:
        path = tmp_path / name
        lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Byte-level BPE with a few merges and the control tokens of conversations."""
    words = ["hello there, how are you today?", "I am well, thank you. And you?", "the cat sat on the mat"] * 4
    return train_bpe(words, 300, (BOS, *CHAT_TOKENS))


@pytest.fixture(scope="session")
def plain_bytes() -> Tokenizer:
    """A token a byte and the control tokens: what a reply is made of can be said byte by byte."""
    return train_bpe([], 261, (BOS, *CHAT_TOKENS))


@pytest.fixture(scope="session")
def saying() -> Callable[..., GPT]:
    """A GPT that writes given ids after <assistant>: each token's likeliest follower is set by hand.

    Its embedding is the identity and its layer adds nothing (output matrices are zero at the start), so that the
    logits depend on the last token alone. No id may stand twice among `ids` unless the text is meant to go round.
    """

    def make(tokenizer: Tokenizer, ids: Sequence[int], block_size: int = 256) -> GPT:
        width = -(-tokenizer.vocab_size // 8) * 8
        model = GPT(
            ModelConfig(n_layer=1, n_head=4, n_embd=width, block_size=block_size, mlp="relu", mlp_hidden=8),
            tokenizer.vocab_size,
        )
        model.init_weights(1)
        chain = [tokenizer.control["<assistant>"], *ids]
        with torch.no_grad():
            model.wte.zero_()
            model.wte[:, : tokenizer.vocab_size] = torch.eye(tokenizer.vocab_size)
            model.lm_head.zero_()
            for before, after in itertools.pairwise(chain):
                model.lm_head[after, before] = 50.0
        return model.eval()

    return make


@pytest.fixture(scope="session")
def random_model() -> Callable[..., GPT]:
    """A GPT with random weights: it babbles, differently for each seed."""

    def make(tokenizer: Tokenizer, block_size: int = 128) -> GPT:
        shape = ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=block_size, init="normal")
        model = GPT(shape, tokenizer.vocab_size)
        model.init_weights(3)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def save_model() -> Callable[..., Path]:
    """Write a model folder as an export has it."""

    def save(folder: Path, model: GPT, tokenizer: Tokenizer) -> Path:
        from microgpt.checkpoints.folder import write_folder
        from microgpt.checkpoints.model import model_files

        write_folder(folder, model_files(model, tokenizer, {}), 0)
        return folder

    return save


@pytest.fixture
def microgpt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `microgpt VERB ...` in this process, in the test's own folder: the same code without the imports."""
    from microgpt.cli import main

    monkeypatch.chdir(tmp_path)

    def run(
        *words: str, code: int = 0, env: dict[str, str] | None = None, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        for name, value in (env or {}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", ["microgpt", *words])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        try:
            with pytest.raises(SystemExit) as ended:
                main()
        finally:
            torch.use_deterministic_algorithms(False)
            torch.set_num_threads(1)
        shown = capsys.readouterr()
        assert ended.value.code == code, f"microgpt {words}: exit {ended.value.code}\n{shown.out}\n{shown.err}"
        return subprocess.CompletedProcess(list(words), code, shown.out, shown.err)

    return run
