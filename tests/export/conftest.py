"""Random models of every shape and tokenizer that an export must carry over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import ModelFolder, model_files, open_model
from microgpt.config.schema import ModelConfig
from microgpt.export.proof import TORTURE
from microgpt.files import shipped
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import BOS, CHAT_TOKENS, Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer

torch.set_num_threads(1)

GPT2 = {"norm": "layernorm", "position": "learned", "qk_norm": False, "mlp": "gelu", "embed_norm": False}
#: shapes by what is peculiar to them; `init=normal` since zero output matrices would hide mistakes
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3 without gains, embedding normalised, tied": {
        "norm": "rmsnorm_nogain",
        "embed_norm": True,
        "tied": True,
    },
    "qwen3 with embedding normalised, grouped heads": {"embed_norm": True, "n_kv_head": 2},
    "llama": {"qk_norm": False, "rope_base": 500.0, "norm_eps": 1e-3},
    "llama with biases, grouped heads, tied": {"qk_norm": False, "bias": True, "n_kv_head": 2, "tied": True},
    "arcee": {"qk_norm": False, "mlp": "relu2", "n_kv_head": 1},
    "gpt2": {**GPT2, "tied": True, "bias": True},
    "gpt2 without biases, untied": GPT2,
    "gpt2 as it was published": {**GPT2, "mlp": "gelu_tanh", "bias": True, "tied": True},
}
Make = Callable[..., ModelFolder]


def texts() -> list[str]:
    return [p.read_text(encoding="utf-8") for p in sorted(shipped("corpora").glob("*.txt"))]


@pytest.fixture(scope="session")
def tokenizers() -> dict[str, Tokenizer]:
    """Byte-level BPE without and with the tokens of conversations, grown by them, without a merge, and characters."""
    corpus = texts()
    plain = train_bpe(corpus, 512)
    return {
        "bpe": plain,
        "chat": train_bpe(corpus, 512, (BOS, *CHAT_TOKENS)),
        "grown": plain.grown(CHAT_TOKENS),
        "bytes": train_bpe([], 257),
        "char": CharTokenizer("".join(corpus) + TORTURE),
        "names": CharTokenizer("abcdefghijklmnopqrstuvwxyz"),
    }


@pytest.fixture(scope="session")
def make(tokenizers: dict[str, Tokenizer], tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A model folder of a shape and tokenizer, every number of it drawn."""

    def of(kind: str = "bpe", **shape: Any) -> ModelFolder:
        sizes = {"n_layer": 2, "n_embd": 64, "n_head": 4, "block_size": 128, "init": "normal", "embed_norm": False}
        config = ModelConfig(**{**sizes, **shape})
        tokenizer = tokenizers[kind]
        model = GPT(config, tokenizer.vocab_size)
        model.init_weights(3)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() == 1:
                    parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        path: Path = tmp_path_factory.mktemp("model") / "model"
        write_folder(path, model_files(model, tokenizer, {"name": "made"}), 1)
        return open_model(path)

    return of
