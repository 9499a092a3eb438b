"""A micro model directory loads into the scalar reference and back, number for number."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from microgpt import reference
from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import load_weights, model_files, open_model
from microgpt.checkpoints.scalar import from_scalar, scalar_config, to_scalar
from microgpt.config.compose import compose
from microgpt.errors import ModelError
from microgpt.model.gpt import GPT
from microgpt.tokenizer.char import CharTokenizer


@pytest.mark.parametrize("preset", ["micro", "micro_first"])
def test_a_model_directory_speaks_through_the_reference(tmp_path: Path, preset: str) -> None:
    tokenizer = CharTokenizer("abcdefgh")
    model = GPT(compose([f"model={preset}"]).model, tokenizer.vocab_size)
    model.init_weights(3)
    torch.nn.init.normal_(model.get_parameter("layer0.attn_wo"), std=0.1)
    write_folder(tmp_path / "model", model_files(model, tokenizer, {}), 0)
    opened = open_model(tmp_path / "model")
    scalar = to_scalar(opened)
    tokens = [tokenizer.bos, *tokenizer.encode("badge")]
    logits = load_weights(opened)(torch.tensor([tokens]))[0]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([*tokens[1:], tokenizer.bos]))
    assert scalar.loss([*tokens, tokenizer.bos]).data == pytest.approx(loss.item(), abs=1e-5)


@pytest.mark.parametrize("preset", ["micro", "micro_first"])
def test_the_reference_comes_back_without_losing_a_bit(tmp_path: Path, preset: str) -> None:
    config = compose([f"model={preset}"]).model
    scalar = reference.GPT.initial(scalar_config(config, 9), random.Random(1))
    gpt = from_scalar(scalar, config)
    for name, rows in reference.to_arrays(scalar).items():
        assert gpt.get_parameter(name).tolist() == rows
    tokenizer = CharTokenizer("abcdefgh")
    write_folder(tmp_path / "model", model_files(gpt, tokenizer, {}), 0)
    again = reference.to_arrays(to_scalar(open_model(tmp_path / "model")))
    for name, rows in reference.to_arrays(scalar).items():
        for row, other in zip(rows, again[name]):
            assert other == [float(torch.tensor(v, dtype=torch.float32)) for v in row]


def test_a_model_of_another_family_is_refused_naming_the_key() -> None:
    with pytest.raises(ModelError, match=r"model\.norm"):
        scalar_config(compose(["model=tiny"]).model, 9)
