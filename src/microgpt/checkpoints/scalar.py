"""Weights between a model directory and the scalar reference, both ways, number for number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from microgpt import reference
from microgpt.checkpoints.folder import WEIGHTS
from microgpt.checkpoints.model import ModelFolder
from microgpt.checkpoints.tensors import read_arrays, read_header
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError

if TYPE_CHECKING:
    from microgpt.model.gpt import GPT

#: what the reference is: every other value of these keys is something it does not have
SHAPE: dict[str, Any] = {
    "norm": "rmsnorm_nogain",
    "embed_norm": True,
    "final_norm": False,
    "position": "learned",
    "qk_norm": False,
    "tied": False,
    "bias": False,
    "n_kv_head": None,
    "mlp_hidden": None,
}


def scalar_config(config: ModelConfig, vocab_size: int) -> reference.Config:
    """The reference's shape of a model config.

    Raises:
        ModelError: the model is not of the reference's family, naming the key.
    """
    for key, wanted in SHAPE.items():
        if getattr(config, key) != wanted:
            raise ModelError(
                f"the scalar reference has no model.{key}={getattr(config, key)}",
                "use model=micro or model=micro_first",
            )
    if config.mlp not in ("relu", "relu2"):
        raise ModelError(
            f"the scalar reference has no model.mlp={config.mlp}", "use model=micro or model=micro_first"
        )
    return reference.Config(
        n_embd=config.n_embd,
        n_head=config.n_head,
        n_layer=config.n_layer,
        block_size=config.block_size,
        vocab_size=vocab_size,
        activation=config.mlp,
        init="first" if config.init == "zero_out" else "current",
    )


def to_scalar(folder: ModelFolder) -> reference.GPT:
    """The reference with the weights of a model directory.

    Raises:
        ModelError: the model is not of the reference's family, or its file is damaged.
    """
    header, start = read_header(folder.path / WEIGHTS)
    arrays = read_arrays(folder.path / WEIGHTS, header, start)
    rows = {name: array.astype(float).tolist() for name, array in arrays.items()}
    try:
        return reference.from_arrays(scalar_config(folder.config, folder.vocab_size), rows)
    except ValueError as error:
        raise ModelError(f"{folder.path}: {error}", "take another model") from None


def from_scalar(model: reference.GPT, config: ModelConfig) -> GPT:
    """A GPT with the weights of the reference, in float64, so that no bit is lost.

    Args:
        model: the reference.
        config: the model's shape, of the same family and sizes.
    """
    import torch

    from microgpt.model.gpt import GPT

    scalar_config(config, model.config.vocab_size)
    gpt = GPT(config, model.config.vocab_size).double()
    arrays = reference.to_arrays(model)
    gpt.load_state_dict({name: torch.tensor(rows, dtype=torch.float64) for name, rows in arrays.items()})
    return gpt
