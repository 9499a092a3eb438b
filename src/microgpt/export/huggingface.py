"""Hugging Face: a folder that transformers' auto classes load with no code of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from microgpt.checkpoints.folder import TOKENIZER, TOKENIZER_CONFIG
from microgpt.checkpoints.model import ModelFolder
from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.export.families import LAYER, Arrays, facts, family, whole_weights
from microgpt.export.vocabulary import (
    chat_files,
    end_tokens,
    generation_config,
    hugging_face_config,
    hugging_face_tokenizer,
    refuse_cl100k,
)

FORMAT = "huggingface"
CLASSES = {
    "qwen3": "Qwen3ForCausalLM",
    "llama": "LlamaForCausalLM",
    "arcee": "ArceeForCausalLM",
    "gpt2": "GPT2LMHeadModel",
}
DEFAULT_SAMPLING = SamplingConfig()
ACTIVATIONS = {"swiglu": "silu", "gelu_tanh": "gelu_new"}  # the other names are the same there
DTYPES = {"f32": "float32", "bf16": "bfloat16", "f16": "float16"}


def check_huggingface(folder: ModelFolder) -> None:
    """Refuse what the format cannot hold, before anything is written.

    Raises:
        ModelError: naming the config value.
    """
    family(folder.config, FORMAT)
    refuse_cl100k(folder.tokenizer, FORMAT)


def write_huggingface(
    folder: ModelFolder, target: Path, dtype: str = "f32", sampling: SamplingConfig = DEFAULT_SAMPLING
) -> None:
    """Write weights, config, tokenizer, chat template and generation config.

    Args:
        folder: an opened model.
        target: a folder that exists; files are written into it.
        dtype: `f32`, `bf16` or `f16`.
        sampling: how generation_config.json says to draw.

    Raises:
        ModelError: no architecture of transformers computes the same, naming the config value.
    """
    import torch
    from safetensors.torch import save

    kind = family(folder.config, FORMAT)
    arrays = whole_weights(folder)
    tensors = gpt2_tensors(folder.config, arrays) if kind == "gpt2" else rotary_tensors(folder.config, arrays)
    wanted = getattr(torch, DTYPES[dtype])
    weights = {name: torch.from_numpy(np.array(a, order="C")).to(wanted) for name, a in tensors.items()}
    (target / "model.safetensors").write_bytes(save(weights, metadata={"format": "pt"}))
    tokenizer, block = folder.tokenizer, folder.config.block_size
    written = {
        "config.json": json.dumps(hugging_face_shape(folder, kind, arrays, dtype), indent=2) + "\n",
        "generation_config.json": generation_config(tokenizer, block, sampling),
        TOKENIZER: hugging_face_tokenizer(tokenizer, FORMAT),
        TOKENIZER_CONFIG: hugging_face_config(tokenizer, block),
        **chat_files(tokenizer),
    }
    for name, text in written.items():
        (target / name).write_text(text, encoding="utf-8")


def rotary_tensors(config: ModelConfig, arrays: Arrays) -> Arrays:
    """The tensors of Qwen3, Llama and Arcee."""
    found: Arrays = {"model.embed_tokens.weight": arrays["wte"], "model.norm.weight": arrays["final_norm.weight"]}
    if "lm_head" in arrays:
        found["lm_head.weight"] = arrays["lm_head"]
    for i in range(config.n_layer):
        for ours, (theirs, _) in LAYER.items():
            if f"layer{i}.{ours}" in arrays:
                found[f"model.layers.{i}.{theirs}"] = arrays[f"layer{i}.{ours}"]
    return found


def gpt2_tensors(config: ModelConfig, arrays: Arrays) -> Arrays:
    """The tensors of GPT-2, whose matrices are [in, out] and which always has biases: zeros where ours has none."""

    def bias(name: str, size: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        return arrays.get(name, np.zeros(size, np.float32))

    width = config.n_embd
    found: Arrays = {
        "transformer.wte.weight": arrays["wte"],
        "transformer.wpe.weight": arrays["wpe"],
        "transformer.ln_f.weight": arrays["final_norm.weight"],
        "transformer.ln_f.bias": bias("final_norm.bias", width),
    }
    if "lm_head" in arrays:
        found["lm_head.weight"] = arrays["lm_head"]
    for i in range(config.n_layer):
        ours, theirs = f"layer{i}.", f"transformer.h.{i}."
        found[f"{theirs}attn.c_attn.weight"] = np.concatenate([arrays[f"{ours}attn_w{x}"] for x in "qkv"]).T
        found[f"{theirs}attn.c_attn.bias"] = np.concatenate([bias(f"{ours}attn_b{x}", width) for x in "qkv"])
        for name, matrix, shift in (
            ("attn.c_proj", "attn_wo", "attn_bo"),
            ("mlp.c_fc", "mlp_fc1", "mlp_b1"),
            ("mlp.c_proj", "mlp_fc2", "mlp_b2"),
        ):
            found[f"{theirs}{name}.weight"] = arrays[ours + matrix].T
            found[f"{theirs}{name}.bias"] = bias(ours + shift, len(arrays[ours + matrix]))
        for name, norm in (("ln_1", "attn_norm"), ("ln_2", "mlp_norm")):
            found[f"{theirs}{name}.weight"] = arrays[f"{ours}{norm}.weight"]
            found[f"{theirs}{name}.bias"] = bias(f"{ours}{norm}.bias", width)
    return found


def hugging_face_shape(folder: ModelFolder, kind: str, arrays: Arrays, dtype: str) -> dict[str, Any]:
    """The content of config.json. Names that changed between transformers 4 and 5 stand in both spellings."""
    c, sizes = folder.config, facts(folder, arrays)
    content: dict[str, Any] = {
        "architectures": [CLASSES[kind]],
        "model_type": kind,
        "dtype": DTYPES[dtype],
        "torch_dtype": DTYPES[dtype],
        "vocab_size": folder.vocab_size,
        "bos_token_id": folder.tokenizer.bos,
        "eos_token_id": end_tokens(folder.tokenizer)[0],
        "tie_word_embeddings": "lm_head" not in arrays,
        "use_cache": True,
    }
    if kind == "gpt2":
        drop: dict[str, Any] = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), c.dropout)
        return content | drop | {
            "n_embd": c.n_embd,
            "n_layer": c.n_layer,
            "n_head": c.n_head,
            "n_positions": c.block_size,
            "n_inner": sizes["intermediate_size"],
            "activation_function": ACTIVATIONS.get(c.mlp, c.mlp),
            "layer_norm_epsilon": c.norm_eps,
        }  # fmt: skip
    return content | sizes | {
        "hidden_act": ACTIVATIONS.get(c.mlp, c.mlp),
        "rms_norm_eps": c.norm_eps,
        "rope_theta": c.rope_base,
        "rope_parameters": {"rope_type": "default", "rope_theta": c.rope_base},
        "attention_bias": c.bias,
        "mlp_bias": c.bias,
        "attention_dropout": c.dropout,
    }  # fmt: skip
