"""`microgpt.load`: what a library's user does, and what it costs to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import microgpt
from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import load_weights, model_files, open_model, read_weights
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError, UsageError
from microgpt.inference.torch_backend import engine_of
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer


@pytest.fixture(scope="module")
def talker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = train_bpe(["hello there, how are you today?"] * 4, 290, (BOS, *CHAT_TOKENS))
    model = GPT(ModelConfig(n_layer=2, n_head=2, n_embd=32, block_size=64, init="normal"), tokenizer.vocab_size)
    model.init_weights(4)
    folder = tmp_path_factory.mktemp("model") / "talker"
    write_folder(folder, model_files(model, tokenizer, {}), 0)
    return folder


def test_texts_and_replies(talker: Path) -> None:
    model = microgpt.load(talker)
    texts = model.generate("hello", num_samples=3, max_new_tokens=9, temperature=1.0, seed=1)
    assert len(set(texts)) == 3
    assert model.generate("hello", max_new_tokens=9, temperature=1.0, seed=2) == texts[1:2]
    reply = model.chat("how are you?", max_new_tokens=12, temperature=0.9, seed=3)
    said = [{"role": "user", "content": "how are you?"}]
    assert "".join(model.stream(said, max_new_tokens=12, temperature=0.9, seed=3)) == reply.text
    assert reply.tokens <= 12
    assert model.config.n_embd == 32
    assert model.tokenizer.is_chat


def test_the_light_backend_writes_what_torch_writes(talker: Path) -> None:
    opened = open_model(talker)
    light = microgpt.load(talker, device="cpu")
    slow = microgpt.load(talker, device="cpu")
    slow.engine = engine_of(load_weights(opened), 2)
    settings: dict[str, Any] = {"max_new_tokens": 40, "temperature": 1.0, "seed": 5}
    assert light.generate("hello", 4, **settings) == slow.generate("hello", 4, **settings)


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_weights_of_every_number_format_are_read_without_torch(tmp_path: Path, dtype: str) -> None:
    tokenizer = CharTokenizer("abc")
    model = GPT(ModelConfig(n_layer=1, n_head=2, n_embd=16, block_size=16, init="normal"), 4)
    model.init_weights(1)
    write_folder(tmp_path / "m", model_files(model, tokenizer, {}, dtype), 0)
    arrays = read_weights(open_model(tmp_path / "m"))
    exact = {"f32": 0.0, "bf16": 2**-8, "f16": 2**-11}[dtype]
    for name, parameter in model.named_parameters():
        assert abs(arrays[name] - parameter.detach().numpy()).max() <= exact * float(parameter.detach().abs().max())


def test_mistakes_are_told_as_in_a_config_file(talker: Path, tmp_path: Path) -> None:
    model = microgpt.load(talker)
    with pytest.raises(UsageError, match="temperature"):
        model.generate(temprature=1)
    with pytest.raises(UsageError, match="top_p"):
        model.generate(top_p=3)
    with pytest.raises(UsageError, match="'robot'"):
        model.chat([{"role": "robot", "content": "hi"}])
    with pytest.raises(UsageError, match="no message"):
        model.chat([])
    with pytest.raises(ModelError):
        microgpt.load(tmp_path)
    with pytest.raises(AttributeError, match="lod"):
        microgpt.lod  # type: ignore[attr-defined]  # noqa: B018


WITHOUT_TORCH = """
import json, sys
import microgpt
model = microgpt.load(sys.argv[1], device="cpu")
texts = model.generate("hello", num_samples=2, max_new_tokens=90, temperature=1.0, seed=1)
reply = model.chat("how are you?", max_new_tokens=8)
print(json.dumps([texts, reply.text, [m for m in ("torch", "mlflow", "hydra", "datasets") if m in sys.modules]]))
"""


def test_the_light_path_imports_no_torch(talker: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(talker)], capture_output=True, text=True, timeout=100, check=True
    )
    texts, reply, heavy = json.loads(done.stdout)
    assert heavy == []
    model = microgpt.load(talker)
    assert texts == model.generate("hello", num_samples=2, max_new_tokens=90, temperature=1.0, seed=1)
    assert reply == model.chat("how are you?", max_new_tokens=8).text


@pytest.mark.parametrize("words", [["generate", "-m"], ["chat-once"]], ids=["generate", "chat-once"])
def test_the_commands_import_no_torch_on_the_cpu(talker: Path, words: list[str]) -> None:
    rest = ["hello"] if words == ["chat-once"] else ["--num-samples", "2"]
    code = (
        "import sys; from microgpt.cli import main\n"
        "try: main()\nexcept SystemExit as e: assert not e.code, e.code\n"
        "print([m for m in ('torch', 'mlflow', 'hydra', 'datasets') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, *words, str(talker), *rest, "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
