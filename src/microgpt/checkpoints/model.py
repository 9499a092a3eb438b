"""Model directories: weights, tokenizer and meta, without an optimizer; what generate, serve and export take."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from microgpt import files
from microgpt.checkpoints.folder import META, TOKENIZER, TOKENIZER_CONFIG, WEIGHTS, verify
from microgpt.checkpoints.tensors import check_shapes, read_arrays, read_header
from microgpt.config.build import build
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError, UsageError
from microgpt.model.shapes import parameter_shapes
from microgpt.tokenizer.base import Tokenizer
from microgpt.tokenizer.load import load_tokenizer
from microgpt.tokenizer.template import tokenizer_config

if TYPE_CHECKING:
    from microgpt.model.gpt import GPT

META_VERSION = 1
SHOWN = 12  # control tokens in a description; imported models may have hundreds


@dataclass(frozen=True)
class ModelFolder:
    """A model directory whose files fit each other.

    Attributes:
        path: the folder.
        meta: content of meta.json.
        config: the model's shape.
        tokenizer: its tokenizer.
    """

    path: Path
    meta: dict[str, Any]
    config: ModelConfig
    tokenizer: Tokenizer

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return self.tokenizer.vocab_size


def make_meta(config: ModelConfig, tokenizer: Tokenizer, more: Mapping[str, Any]) -> dict[str, Any]:
    """The content of meta.json."""
    return {
        "format": "microgpt-model",
        "version": META_VERSION,
        "vocab_size": tokenizer.vocab_size,
        "n_embd": config.n_embd,
        "n_head": config.n_head,
        "n_layer": config.n_layer,
        "block_size": config.block_size,
        "special_tokens": tokenizer.control,
        "model": dataclasses.asdict(config),
        **more,
    }


def model_files(model: GPT, tokenizer: Tokenizer, meta: Mapping[str, Any], dtype: str = "f32") -> dict[str, bytes]:
    """The files of a model directory.

    Args:
        model: its weights.
        tokenizer: goes along.
        meta: further facts for meta.json.
        dtype: `f32`, `bf16` or `f16`.
    """
    import torch
    from safetensors.torch import save

    kinds = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
    weights = {n: p.detach().to("cpu", kinds[dtype]).contiguous() for n, p in model.named_parameters()}
    content = make_meta(model.config, tokenizer, {**meta, "dtype": dtype})
    return {
        WEIGHTS: save(weights, metadata={"format": "pt"}),
        TOKENIZER: tokenizer.to_json().encode("utf-8"),
        TOKENIZER_CONFIG: tokenizer_config(tokenizer, model.config.block_size).encode("utf-8"),
        META: (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8"),
    }


def open_model(path: Path) -> ModelFolder:
    """Read and check a model directory, all but the weights' numbers.

    Raises:
        ModelError: a file is missing, damaged, or does not fit the others.
    """
    if path.is_file():
        raise ModelError(f"{path} is a file", "give the folder of a model: only safetensors and JSON are read")
    if not (path / META).exists():
        kinds = [p.name for p in path.glob("*") if p.suffix in (".ckpt", ".pt", ".pth", ".bin", ".pkl")]
        if kinds:
            raise ModelError(f"{path} holds {kinds[0]}, which may be a pickle", "only safetensors and JSON are read")
        raise ModelError(f"{path} is no model: it has no {META}", "give a run, a checkpoint or an export")
    if (path / "MANIFEST.json").exists():
        verify(path)
    try:
        meta: Any = files.read_json(path / META)
        if meta["format"] != "microgpt-model" or meta["version"] > META_VERSION:
            raise ModelError(f"{path / META} is of another format or a newer release", "update microgpt")
        config = build(ModelConfig, meta["model"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path / META} is damaged ({type(error).__name__}: {error})", "copy it again") from None
    except UsageError as error:
        raise ModelError(f"{path / META}: {error.what}", "copy it again") from None
    tokenizer = load_tokenizer(path / TOKENIZER)
    if meta.get("vocab_size") != tokenizer.vocab_size:
        raise ModelError(
            f"{path}: the tokenizer has {tokenizer.vocab_size} tokens, the model {meta.get('vocab_size')}",
            "take both files from one checkpoint",
        )
    header, _ = read_header(path / WEIGHTS)
    # before any shape is worked out: the file must have the first and the last layer that the config asks for
    for name, there in (
        (f"layer{config.n_layer - 1}.attn_wq", True),
        (f"layer{config.n_layer}.attn_wq", False),
    ):
        if (name in header) != there:
            raise ModelError(f"{path / WEIGHTS} does not have {config.n_layer} layers", "copy the folder again")
    return ModelFolder(path, meta, config, tokenizer)


def read_weights(folder: ModelFolder) -> dict[str, npt.NDArray[Any]]:
    """The weights of a model directory by name, float32, without torch.

    Raises:
        ModelError: they do not fit the config, or hold NaN.
    """
    path = folder.path / WEIGHTS
    header, start = read_header(path)
    check_shapes(path, header, parameter_shapes(folder.config, folder.vocab_size))
    return read_arrays(path, header, start)


def load_weights(folder: ModelFolder, device: str = "cpu") -> GPT:
    """The GPT of a model directory, in evaluation mode, float32.

    Raises:
        ModelError: the weights do not fit the config, or hold NaN.
    """
    import torch

    from microgpt.model.gpt import GPT

    arrays = read_weights(folder)
    model = GPT(folder.config, folder.vocab_size)
    model.load_state_dict({name: torch.from_numpy(a) for name, a in arrays.items()})
    return model.to(device).eval()


def described(opened: ModelFolder) -> dict[str, str]:
    """What is known of a model, in words: folder, size, shape, tokenizer, training, scores, data."""
    header, _ = read_header(opened.path / WEIGHTS)
    m, meta, control = opened.config, opened.meta, list(opened.tokenizer.control)
    origin = meta.get("imported", {})
    parameters = sum(math.prod(shape) for _, shape, _, _ in header.values())
    return {
        "folder": str(opened.path),
        "parameters": f"{parameters:,} in {len(header)} tensors, {meta.get('dtype', 'f32')}",
        "shape": f"{m.n_layer} layers x {m.n_embd} wide x {m.n_head} heads, context {m.block_size}",
        "parts": f"{m.norm}, {m.position} positions, {m.mlp} MLP{', qk-norm' if m.qk_norm else ''}",
        "tokenizer": f"{opened.tokenizer.kind}, {opened.vocab_size:,} tokens; control: "
        + " ".join([*control[:SHOWN], *([f"and {len(control) - SHOWN:,} more"] if control[SHOWN:] else [])]),
        "trained": f"{meta.get('step', 0):,} steps, {meta.get('tokens', 0):,} tokens",
        **{k: f"{v:.4f}" for k, v in meta.get("val", {}).items() if isinstance(v, float)},
        **({"imported": f"from {origin.get('name')} ({origin.get('kind')})"} if origin else {}),
        "data": ", ".join(Path(s["path"]).name for s in meta.get("data", {}).get("sources", [])) or "unknown",
        "size": files.human_bytes(files.folder_bytes(opened.path)),
    }
