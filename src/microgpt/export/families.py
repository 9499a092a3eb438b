"""Where a model's shape is at home elsewhere: its family, its tensors under that family's names.

The preset shapes are other projects' architectures to the letter, so that their own code runs them: Qwen3 (rotary
positions, SwiGLU, normalised queries and keys), Llama (the same without that norm), Arcee (one hidden matrix
without a gate) and GPT-2 (learned positions, LayerNorm). What no family has is refused by the key that says so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.checkpoints.model import ModelFolder, read_weights
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError

Arrays = dict[str, npt.NDArray[np.float32]]
MEND = "format=safetensors holds every model, format=onnx runs every model"

#: tensors of a layer by our name: Hugging Face's name and GGUF's, in the families with rotary positions
LAYER = {
    "attn_norm.weight": ("input_layernorm.weight", "attn_norm.weight"),
    "attn_wq": ("self_attn.q_proj.weight", "attn_q.weight"),
    "attn_bq": ("self_attn.q_proj.bias", "attn_q.bias"),
    "attn_wk": ("self_attn.k_proj.weight", "attn_k.weight"),
    "attn_bk": ("self_attn.k_proj.bias", "attn_k.bias"),
    "attn_wv": ("self_attn.v_proj.weight", "attn_v.weight"),
    "attn_bv": ("self_attn.v_proj.bias", "attn_v.bias"),
    "attn_wo": ("self_attn.o_proj.weight", "attn_output.weight"),
    "attn_bo": ("self_attn.o_proj.bias", "attn_output.bias"),
    "q_norm.weight": ("self_attn.q_norm.weight", "attn_q_norm.weight"),
    "k_norm.weight": ("self_attn.k_norm.weight", "attn_k_norm.weight"),
    "mlp_norm.weight": ("post_attention_layernorm.weight", "ffn_norm.weight"),
    "mlp_gate": ("mlp.gate_proj.weight", "ffn_gate.weight"),
    "mlp_gate_bias": ("mlp.gate_proj.bias", "ffn_gate.bias"),
    "mlp_fc1": ("mlp.up_proj.weight", "ffn_up.weight"),
    "mlp_b1": ("mlp.up_proj.bias", "ffn_up.bias"),
    "mlp_fc2": ("mlp.down_proj.weight", "ffn_down.weight"),
    "mlp_b2": ("mlp.down_proj.bias", "ffn_down.bias"),
}


def family(config: ModelConfig, format: str) -> str:
    """The architecture that computes the same: `qwen3`, `llama`, `arcee` or `gpt2`.

    Args:
        config: the model's shape.
        format: what to call the format in the error.

    Raises:
        ModelError: there is none, naming the config value that prevents it.
    """

    def no(key: str, why: str) -> ModelError:
        value = getattr(config, key)
        shown = str(value).lower() if isinstance(value, bool) else value
        return ModelError(f"format={format} cannot hold model.{key}={shown}: {why}", MEND)

    if not config.final_norm:
        raise no("final_norm", "every architecture that it knows normalises before the head")
    if config.position == "learned":
        if config.norm != "layernorm":
            raise no("norm", "with learned positions it knows GPT-2 alone, which has layernorm")
        if config.mlp == "swiglu":
            raise no("mlp", "with learned positions it knows GPT-2 alone, whose MLP has no gate")
        if config.qk_norm:
            raise no("qk_norm", "with learned positions it knows GPT-2 alone, which does not normalise queries")
        if config.embed_norm:
            raise no("embed_norm", "with learned positions it knows GPT-2 alone, which has no norm there")
        if config.n_kv_head not in (None, config.n_head):
            raise no("n_kv_head", "with learned positions it knows GPT-2 alone, which has no grouped heads")
        return "gpt2"
    if config.norm == "layernorm":
        raise no("norm", "with rotary positions it knows Qwen3, Llama and Arcee, which have rmsnorm")
    if config.mlp == "swiglu":
        if config.qk_norm and config.bias:
            raise no("bias", "Qwen3, which normalises queries and keys, has no biases in its MLP")
        return "qwen3" if config.qk_norm else "llama"
    if config.qk_norm:
        raise no("qk_norm", f"model.mlp={config.mlp} is Arcee, which does not normalise queries and keys")
    return "arcee"


def whole_weights(folder: ModelFolder) -> Arrays:
    """The tensors of a model under our names, in float32, with what the config leaves out written out.

    Norms without gain get a gain of 1, which changes nothing. A norm right after the embedding is worked into the
    table, where it depends on the token alone; the head then is a tensor of its own.

    Raises:
        ModelError: the weights do not fit the config, or hold NaN.
    """
    arrays: Arrays = {name: a.astype(np.float32, copy=False) for name, a in read_weights(folder).items()}
    c = folder.config
    ones = np.ones(c.n_embd, np.float32)
    for i in range(c.n_layer):
        at = f"layer{i}."
        for norm in ("attn_norm.weight", "mlp_norm.weight"):
            arrays.setdefault(at + norm, ones)
        if c.qk_norm:
            for norm in ("q_norm.weight", "k_norm.weight"):
                arrays.setdefault(at + norm, np.ones(c.n_embd // c.n_head, np.float32))
        if c.bias and c.mlp == "swiglu":
            arrays[at + "mlp_gate_bias"] = np.zeros(len(arrays[at + "mlp_gate"]), np.float32)
    arrays.setdefault("final_norm.weight", ones)
    if c.embed_norm and c.position == "rope":
        table = arrays["wte"].astype(np.float64)
        arrays.setdefault("lm_head", arrays["wte"])
        scale = np.sqrt((table**2).mean(axis=1, keepdims=True) + c.norm_eps)
        arrays["wte"] = (table / scale * arrays.pop("embed_norm.weight", ones)).astype(np.float32)
    return arrays


def facts(folder: ModelFolder, arrays: Arrays) -> dict[str, Any]:
    """The sizes that both formats write down, under Hugging Face's names."""
    c = folder.config
    return {
        "vocab_size": folder.vocab_size,
        "hidden_size": c.n_embd,
        "intermediate_size": len(arrays["layer0.mlp_fc1"]),
        "num_hidden_layers": c.n_layer,
        "num_attention_heads": c.n_head,
        "num_key_value_heads": c.n_kv_head or c.n_head,
        "head_dim": c.n_embd // c.n_head,
        "max_position_embeddings": c.block_size,
    }
