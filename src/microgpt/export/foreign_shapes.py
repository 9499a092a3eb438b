"""The shapes and tensors of other programs' models in this project's terms, or the value that has none."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from microgpt.config.build import build
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError, UsageError
from microgpt.export.families import LAYER, Arrays

MEND = "microgpt cannot express this model exactly, so it does not import it"
#: activations by Hugging Face's name
GATED = {"silu": "swiglu", "swish": "swiglu"}
PLAIN = {
    **{name: name for name in ("relu", "relu2", "gelu")},
    **dict.fromkeys(("gelu_new", "gelu_pytorch_tanh"), "gelu_tanh"),
}
#: by family: activations that it has, the one that it has by default, and its default of rms_norm_eps
ROTARY: dict[str, tuple[dict[str, str], str, float]] = {
    "llama": (GATED, "silu", 1e-6),
    "qwen3": (GATED, "silu", 1e-6),
    "arcee": (PLAIN, "relu2", 1e-5),
}
#: tensors that hold no weights: masks and frequencies that older releases saved along
BUFFERS = re.compile(r"(^|\.)(h\.\d+\.attn\.(bias|masked_bias)|rotary_emb\.inv_freq)$")
#: what prior art's models are: its meta.json says sizes alone
PRIOR_ART: dict[str, Any] = {
    "norm": "rmsnorm_nogain",
    "embed_norm": True,
    "final_norm": False,
    "position": "learned",
    "qk_norm": False,
    "mlp": "relu",
}
GPT2 = {
    "attn.c_proj.weight": "attn_wo",
    "attn.c_proj.bias": "attn_bo",
    "mlp.c_fc.weight": "mlp_fc1",
    "mlp.c_fc.bias": "mlp_b1",
    "mlp.c_proj.weight": "mlp_fc2",
    "mlp.c_proj.bias": "mlp_b2",
    "ln_1.weight": "attn_norm.weight",
    "ln_1.bias": "attn_norm.bias",
    "ln_2.weight": "mlp_norm.weight",
    "ln_2.bias": "mlp_norm.bias",
}


def refusal(file: str, key: str, value: Any, why: str) -> ModelError:
    """The error for a value of a config file."""
    shown = json.dumps(value) if isinstance(value, bool) or value is None else str(value)[:80]
    return ModelError(f"{file}: {key}={shown}: {why}", MEND)


class Values:
    """A config file that is asked value by value.

    Args:
        content: the JSON object.
        file: what to call it in errors.
    """

    def __init__(self, content: Mapping[str, Any], file: str) -> None:
        self.content, self.file = content, file

    def only(self, key: str, *allowed: Any, why: str) -> None:
        """Refuse a value that is none of these; a missing or null one is the default, and fine."""
        value = self.content.get(key)
        if value is not None and value not in allowed:
            raise refusal(self.file, key, value, why)

    def number(self, key: str, default: float | None = None) -> Any:
        """A number.

        Raises:
            ModelError: it is missing, or is something else.
        """
        value = self.content.get(key)
        value = default if value is None else value
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise refusal(self.file, key, value, "a number is needed")
        return value

    def built(self, sizes: dict[str, Any]) -> ModelConfig:
        """The model's shape, every value of it checked.

        Raises:
            ModelError: a value is out of range or of another type.
        """
        try:
            return build(ModelConfig, {**vars(ModelConfig()), "embed_norm": False, **sizes})
        except UsageError as error:
            raise ModelError(f"{self.file}: {error.what}", MEND) from None


def hugging_face_shape(content: Mapping[str, Any], file: str) -> ModelConfig:
    """The shape that a config.json describes.

    Raises:
        ModelError: naming the value that this project has no way to express.
    """
    values = Values(content, file)
    values.only("auto_map", {}, why="the model has code of its own, and no foreign code is run")
    values.only("quantization_config", {}, why="quantised weights are not read")
    kind = content.get("model_type")
    if kind == "gpt2":
        return _gpt2_shape(values)
    if not isinstance(kind, str) or kind not in ROTARY:
        known = ", ".join([*ROTARY, "gpt2"])
        raise refusal(file, "model_type", kind, f"the families that can be imported are {known}")
    return _rotary_shape(values, kind)


def _rotary_shape(values: Values, kind: str) -> ModelConfig:
    content, file = values.content, values.file
    activations, default, eps = ROTARY[kind]
    activation = content.get("hidden_act") or default
    if not isinstance(activation, str) or activation not in activations:
        raise refusal(file, "hidden_act", activation, f"{kind} is imported with {', '.join(activations)}")
    values.only("use_sliding_window", False, why="there is no sliding window")
    types = content.get("layer_types")
    if types is not None and (not isinstance(types, list) or any(t != "full_attention" for t in types)):
        raise refusal(file, "layer_types", types, "there is no sliding window")
    width, heads = values.number("hidden_size"), values.number("num_attention_heads")
    # for Qwen3 transformers takes 128 and 32 where these keys are missing
    head = values.number("head_dim", 128 if kind == "qwen3" else 0)
    if head and head * heads != width:
        raise refusal(file, "head_dim", head, "head_dim times num_attention_heads is hidden_size here")
    groups = values.number("num_key_value_heads", 32 if kind == "qwen3" else heads)
    bias = bool(content.get("attention_bias")) or bool(content.get("mlp_bias"))
    return values.built(
        {
            "n_layer": values.number("num_hidden_layers"),
            "n_head": heads,
            "n_kv_head": None if groups == heads else groups,
            "n_embd": width,
            "block_size": values.number("max_position_embeddings"),
            "mlp": activations[activation],
            "mlp_hidden": values.number("intermediate_size"),
            "norm": "rmsnorm",
            "norm_eps": values.number("rms_norm_eps", eps),
            "position": "rope",
            "rope_base": _rope_base(values),
            "qk_norm": kind == "qwen3",
            "tied": bool(content.get("tie_word_embeddings", False)),
            "bias": bias,
        }
    )


def _rope_base(values: Values) -> float:
    """The base of the rotary frequencies; transformers 5 has it in `rope_parameters`, earlier ones beside it."""
    content, file = values.content, values.file
    found: Any = content.get("rope_theta")
    for key in ("rope_scaling", "rope_parameters"):
        rope = content.get(key)
        if rope is None:
            continue
        if not isinstance(rope, dict):
            raise refusal(file, key, rope, "an object is needed")
        kind = rope.get("rope_type", rope.get("type", "default"))
        if kind != "default":
            raise refusal(file, f"{key}.rope_type", kind, "rotary frequencies are not scaled")
        if rope.get("partial_rotary_factor") not in (None, 1, 1.0):
            raise refusal(file, f"{key}.partial_rotary_factor", rope["partial_rotary_factor"], "all of a head turns")
        found = rope.get("rope_theta", found)
    values.only("partial_rotary_factor", 1, 1.0, why="all of a head turns")
    return Values({"rope_theta": found}, file).number("rope_theta", 10000.0)


def _gpt2_shape(values: Values) -> ModelConfig:
    content, file = values.content, values.file
    activation = content.get("activation_function") or "gelu_new"
    if not isinstance(activation, str) or activation not in PLAIN:
        raise refusal(file, "activation_function", activation, f"gpt2 is imported with {', '.join(PLAIN)}")
    values.only("scale_attn_weights", True, why="attention is always scaled")
    values.only("scale_attn_by_inverse_layer_idx", False, why="attention is scaled alike in all layers")
    values.only("add_cross_attention", False, why="there is no cross-attention")
    width = values.number("n_embd", 768)
    return values.built(
        {
            "n_layer": values.number("n_layer", 12),
            "n_head": values.number("n_head", 12),
            "n_embd": width,
            "block_size": values.number("n_positions", 1024),
            "mlp": PLAIN[activation],
            "mlp_hidden": values.number("n_inner", 4 * width),
            "norm": "layernorm",
            "norm_eps": values.number("layer_norm_epsilon", 1e-5),
            "position": "learned",
            "qk_norm": False,
            "tied": bool(content.get("tie_word_embeddings", True)),
            "bias": True,
        }
    )


def plain_shape(content: Mapping[str, Any], file: str) -> ModelConfig:
    """The shape that prior art's meta.json describes.

    Raises:
        ModelError: a size is missing or wrong.
    """
    values = Values(content, file)
    sizes = {key: values.number(key) for key in ("n_embd", "n_head", "n_layer", "block_size")}
    return values.built({**sizes, **PRIOR_ART})


def own_names(tensors: Arrays, config: ModelConfig, content: Mapping[str, Any]) -> Arrays:
    """Hugging Face's tensors under our names, matrices [out, in].

    Raises:
        ModelError: a tensor is unknown, or is a bias that this project does not have.
    """
    tensors = {name: a for name, a in tensors.items() if not BUFFERS.search(name)}
    found = _own_gpt2(tensors) if content.get("model_type") == "gpt2" else _own_rotary(tensors, config)
    if config.bias and config.position == "rope":
        width, hidden = config.n_embd, config.mlp_hidden or 0
        kv = (config.n_kv_head or config.n_head) * (width // config.n_head)
        sizes = {"attn_bq": width, "attn_bk": kv, "attn_bv": kv, "attn_bo": width, "mlp_b1": hidden, "mlp_b2": width}
        for i in range(config.n_layer):
            for name, size in sizes.items():  # a family that lacks one computes as if it were zero
                found.setdefault(f"layer{i}.{name}", np.zeros(size, np.float32))
    return found


def _own_rotary(tensors: Arrays, config: ModelConfig) -> Arrays:
    ours = {theirs: name for name, (theirs, _) in LAYER.items()}
    found: Arrays = {}
    for name, array in tensors.items():
        layer = re.fullmatch(r"model\.layers\.(\d{1,4})\.(.+)", name)
        if layer and ours.get(layer[2]) == "mlp_gate_bias":
            if array.any():
                raise refusal("config.json", "mlp_bias", True, "the gate of the MLP has no bias")
            continue
        own = f"layer{layer[1]}.{ours[layer[2]]}" if layer and layer[2] in ours else TOPS.get(name)
        if own is None:
            raise ModelError(f"{name[:80]} is no tensor of a {config.mlp} model with rotary positions", MEND)
        found[own] = array
    return found


TOPS = {
    "model.embed_tokens.weight": "wte",
    "model.norm.weight": "final_norm.weight",
    "lm_head.weight": "lm_head",
    "wte.weight": "wte",
    "wpe.weight": "wpe",
    "ln_f.weight": "final_norm.weight",
    "ln_f.bias": "final_norm.bias",
}


def _own_gpt2(tensors: Arrays) -> Arrays:
    """GPT-2's tensors, whose matrices are [in, out] and whose queries, keys and values are one."""
    found: Arrays = {}
    for full, array in tensors.items():
        name = full.removeprefix("transformer.")
        layer = re.fullmatch(r"h\.(\d{1,4})\.(.+)", name)
        if layer is None:
            if name not in TOPS:
                raise ModelError(f"{full[:80]} is no tensor of a gpt2 model", MEND)
            found[TOPS[name]] = array
            continue
        at, part = f"layer{layer[1]}.", layer[2]
        stored = array.T if array.ndim == 2 else array
        if part in ("attn.c_attn.weight", "attn.c_attn.bias"):
            if len(stored) % 3:
                raise ModelError(f"{full[:80]} is of an odd shape: {array.shape}", MEND)
            letter = "w" if part.endswith("weight") else "b"
            found |= {f"{at}attn_{letter}{x}": a for x, a in zip("qkv", np.split(stored, 3))}
        elif part in GPT2:
            found[at + GPT2[part]] = stored
        else:
            raise ModelError(f"{full[:80]} is no tensor of a gpt2 model", MEND)
    return found


def drop_tied_head(config: ModelConfig, tensors: Arrays) -> None:
    """Leave out a head that is saved along although it is the embedding's table.

    Raises:
        ModelError: the config says that they are one, and they are not.
    """
    if config.tied and "lm_head" in tensors:
        if "wte" not in tensors or not np.array_equal(tensors["lm_head"], tensors["wte"]):
            raise refusal("config.json", "tie_word_embeddings", True, "yet the file has a head of its own")
        del tensors["lm_head"]
