"""ONNX: a graph with a KV cache, made node by node from the standard operators of opset 23; every model has one.

`input_ids` [batch, tokens] and `past_key_values.<layer>.key` and `.value` [batch, heads, past, width] go in, with
past = 0 at the start; `logits` [batch, tokens, vocabulary] and `present.<layer>.key` and `.value` come out. Positions
follow from the length of the past. The names are those of Optimum and transformers.js.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.checkpoints.folder import TOKENIZER, TOKENIZER_CONFIG
from microgpt.checkpoints.model import ModelFolder, read_weights
from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.errors import ModelError
from microgpt.export.vocabulary import (
    chat_files,
    generation_config,
    hugging_face_config,
    hugging_face_tokenizer,
    refuse_cl100k,
)

FORMAT, FILE = "onnx", "model.onnx"
OPSET, IR = 23, 11
LIMIT = 2**31 - 2**20  # a protocol buffer holds 2 GB


def check_onnx(folder: ModelFolder) -> None:
    """Refuse what the format cannot hold, before anything is written.

    Raises:
        ModelError: the tokenizer cannot be written for others, or the model is too large for one file.
    """
    refuse_cl100k(folder.tokenizer, FORMAT)
    if 4 * sum(array.size for array in read_weights(folder).values()) > LIMIT:
        raise ModelError(
            f"format={FORMAT} cannot hold more than 2 GB", "use format=safetensors or format=huggingface"
        )


def write_onnx(folder: ModelFolder, target: Path, dtype: str, sampling: SamplingConfig) -> None:
    """Write the graph, and the tokenizer and generation config as Hugging Face has them.

    Args:
        folder: an opened model.
        target: a folder that exists; files are written into it.
        dtype: `f32`.
        sampling: what generation_config.json says.

    Raises:
        ModelError: as of `check_onnx`.
    """
    import onnx

    check_onnx(folder)
    model = Graph(folder.config, read_weights(folder)).model()
    onnx.checker.check_model(model)
    (target / FILE).write_bytes(model.SerializeToString())
    tokenizer, block = folder.tokenizer, folder.config.block_size
    written = {
        "generation_config.json": generation_config(tokenizer, block, sampling),
        TOKENIZER: hugging_face_tokenizer(tokenizer, FORMAT),
        TOKENIZER_CONFIG: hugging_face_config(tokenizer, block),
        **chat_files(tokenizer),
    }
    for name, text in written.items():
        (target / name).write_text(text, encoding="utf-8")


class Graph:
    """A model as ONNX nodes. A method adds nodes and returns the name of the tensor that they make.

    Args:
        config: its shape.
        arrays: its weights by our names.
    """

    def __init__(self, config: ModelConfig, arrays: dict[str, npt.NDArray[Any]]) -> None:
        self._c, self._arrays = config, arrays
        self._nodes: list[Any] = []
        self._constants: dict[str, npt.NDArray[Any]] = {}
        self._heads, self._kv = config.n_head, config.n_kv_head or config.n_head
        self._width = config.n_embd // config.n_head

    def model(self) -> Any:
        """The whole graph as a ModelProto."""
        from onnx import TensorProto, helper, numpy_helper

        c = self._c
        cache = ["batch", self._kv, "past", self._width]
        total = ["batch", self._kv, "total", self._width]

        def info(name: str, shape: list[Any], kind: int = TensorProto.FLOAT) -> Any:
            return helper.make_tensor_value_info(name, kind, shape)

        parts = [f"{i}.{part}" for i in range(c.n_layer) for part in ("key", "value")]
        inputs = [info("input_ids", ["batch", "tokens"], TensorProto.INT64)]
        inputs += [info(f"past_key_values.{part}", cache) for part in parts]
        self._build()
        vocabulary = len(self._arrays["wte"])
        outputs = [
            info("logits", ["batch", "tokens", vocabulary]),
            *(info(f"present.{part}", total) for part in parts),
        ]
        constants = [numpy_helper.from_array(array, name) for name, array in self._constants.items()]
        graph = helper.make_graph(self._nodes, "microgpt", inputs, outputs, constants)
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR, producer_name="microgpt")

    def _node(self, kind: str, *inputs: str, out: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = out or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def _constant(self, name: str, value: Any, kind: Any = np.int64) -> str:
        self._constants[name] = np.asarray(value, kind)
        return name

    def _weight(self, name: str, transposed: bool = False) -> str:
        """A weight as it is, or as [in, out]."""
        array = self._arrays[name].astype(np.float32)
        return self._constant(
            name + (".T" if transposed else ""), array.T.copy() if transposed else array, np.float32
        )

    def _linear(self, x: str, weight: str, bias: str, out: str = "") -> str:
        with_bias = bias in self._arrays
        y = self._node("MatMul", x, self._weight(weight, True), out="" if with_bias else out)
        return self._node("Add", y, self._weight(bias), out=out) if with_bias else y

    def _norm(self, x: str, name: str, width: int) -> str:
        """The norm of a name over the last dimension, whatever kind it is."""
        eps = self._c.norm_eps
        gain = f"{name}.weight"
        if gain not in self._arrays:
            weight = self._constant(f"ones.{width}", np.ones(width), np.float32)
        else:
            weight = self._weight(gain)
        if self._c.norm == "layernorm" and width == self._c.n_embd and not name.endswith(("q_norm", "k_norm")):
            bias = [self._weight(f"{name}.bias")] if f"{name}.bias" in self._arrays else []
            return self._node("LayerNormalization", x, weight, *bias, axis=-1, epsilon=eps)
        return self._node("RMSNormalization", x, weight, axis=-1, epsilon=eps)

    def _build(self) -> None:
        c = self._c
        one = self._constant("one", [1])
        size = self._node("Shape", "input_ids")
        tokens = self._node("Gather", size, self._constant("second", 1))
        past = self._node("Gather", self._node("Shape", "past_key_values.0.key"), self._constant("third", 2))
        total = self._node("Add", past, tokens)
        step = self._constant("step", 1)
        places = self._node("Range", past, total, step)
        keys = self._node("Range", self._constant("zero", 0), total, step)
        # a token sees the keys up to its own place
        mask = self._node("LessOrEqual", keys, self._node("Unsqueeze", places, one))
        x = self._node("Gather", self._weight("wte"), "input_ids")
        if c.position == "learned":
            x = self._node("Add", x, self._node("Gather", self._weight("wpe"), places))
            rotate = None
        else:
            every = self._node("Expand", self._node("Unsqueeze", places, self._constant("front", [0])), size)
            exponents = np.arange(0, self._width, 2, dtype=np.float64) / self._width
            angles = np.outer(np.arange(c.block_size, dtype=np.float64), c.rope_base**-exponents)
            cos = self._constant("rope.cos", np.cos(angles), np.float32)
            sin = self._constant("rope.sin", np.sin(angles), np.float32)
            rotate = (cos, sin, every)
        if c.embed_norm:
            x = self._norm(x, "embed_norm", c.n_embd)
        for i in range(c.n_layer):
            at = f"layer{i}."
            x = self._node("Add", x, self._attention(self._norm(x, f"{at}attn_norm", c.n_embd), i, mask, rotate))
            x = self._node("Add", x, self._mlp(self._norm(x, f"{at}mlp_norm", c.n_embd), at))
        if c.final_norm:
            x = self._norm(x, "final_norm", c.n_embd)
        self._linear(x, "wte" if c.tied else "lm_head", "", out="logits")

    def _attention(self, x: str, layer: int, mask: str, rotate: tuple[str, str, str] | None) -> str:
        from onnx import helper

        at = f"layer{layer}."
        found: list[str] = []
        for part, heads in (("q", self._heads), ("k", self._kv)):
            y = self._linear(x, f"{at}attn_w{part}", f"{at}attn_b{part}")
            if self._c.qk_norm:
                apart = self._constant(f"heads.{heads}", [0, 0, heads, self._width])
                together = self._constant(f"row.{heads}", [0, 0, heads * self._width])
                y = self._norm(self._node("Reshape", y, apart), f"{at}{part}_norm", self._width)
                y = self._node("Reshape", y, together)
            if rotate is not None:
                y = self._node("RotaryEmbedding", y, *rotate, num_heads=heads)
            found.append(y)
        found.append(self._linear(x, f"{at}attn_wv", f"{at}attn_bv"))
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        outputs = [f"attention_{layer}", *(f"present.{layer}.{part}" for part in ("key", "value"))]
        sizes: dict[str, Any] = {"q_num_heads": self._heads, "kv_num_heads": self._kv}
        node = helper.make_node("Attention", [*found, mask, *past], outputs, name=outputs[0], **sizes)
        self._nodes.append(node)
        return self._linear(outputs[0], f"{at}attn_wo", f"{at}attn_bo")

    def _mlp(self, x: str, at: str) -> str:
        y = self._linear(x, f"{at}mlp_fc1", f"{at}mlp_b1")
        if self._c.mlp == "swiglu":
            gate = self._linear(x, f"{at}mlp_gate", "")
            y = self._node("Mul", self._node("Mul", gate, self._node("Sigmoid", gate)), y)
        elif self._c.mlp in ("gelu", "gelu_tanh"):
            y = self._node("Gelu", y, approximate="tanh" if self._c.mlp == "gelu_tanh" else "none")
        else:
            y = self._node("Relu", y)
            y = self._node("Mul", y, y) if self._c.mlp == "relu2" else y
        return self._linear(y, f"{at}mlp_fc2", f"{at}mlp_b2")
