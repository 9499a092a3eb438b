"""Models with random weights for the inference benchmarks, in every format that the other side reads."""

from __future__ import annotations

from pathlib import Path

from common import scratch

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import ModelFolder, model_files, open_model
from microgpt.config.compose import compose
from microgpt.export.gguf import write_gguf
from microgpt.files import shipped
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS
from microgpt.tokenizer.bpe import train_bpe

VOCABULARY = 4096


def random_model(preset: str) -> ModelFolder:
    """A preset with random weights (speed does not depend on their values) and a tokenizer that knows chat."""
    lines = (shipped("corpora") / "tales.txt").read_text(encoding="utf-8").splitlines()
    tokenizer = train_bpe(lines, VOCABULARY, (BOS, *CHAT_TOKENS))
    config = compose([f"model={preset}", "model.init=normal"], "train").model
    model = GPT(config, tokenizer.vocab_size)
    model.init_weights(1)
    folder = scratch() / preset
    write_folder(folder, model_files(model, tokenizer, {}), 0)
    return open_model(folder)


def gguf_of(folder: ModelFolder, dtype: str) -> Path:
    """The model as a GGUF file."""
    file = folder.path.parent / f"{folder.path.name}-{dtype}.gguf"
    write_gguf(folder, file, dtype)
    return file
