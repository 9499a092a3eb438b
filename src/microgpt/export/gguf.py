"""GGUF: one file that llama.cpp and all that is built on it load, and a Modelfile for Ollama beside it.

The layout is what llama.cpp's own converter writes; that one refuses tokenizers that nobody has registered, so this
is a writer of the project's own on the `gguf` package. Queries and keys of Llama and Arcee are stored with the two
halves of each head's rotary pairs interleaved, as llama.cpp turns neighbours there (Qwen3 it turns by halves).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from microgpt.checkpoints.model import ModelFolder
from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.errors import ModelError
from microgpt.export.families import LAYER, MEND, Arrays, facts, family, whole_weights
from microgpt.export.vocabulary import end_tokens, refuse_cl100k
from microgpt.tokenizer.base import END_TURN, Tokenizer
from microgpt.tokenizer.char import CharTokenizer
from microgpt.tokenizer.splits import GPT2, split_name
from microgpt.tokenizer.template import CHAT_TEMPLATE

FORMAT, FILE, MODELFILE = "gguf", "model.gguf", "Modelfile"
DTYPES = {"f32": "F32", "bf16": "BF16", "f16": "F16", "q8_0": "Q8_0"}
BLOCK_Q8 = 32  # numbers that share a scale; a row is whole blocks or stays f16


def check_gguf(folder: ModelFolder) -> None:
    """Refuse what llama.cpp cannot compute, before anything is written.

    Raises:
        ModelError: naming the config value.
    """
    c = folder.config
    kind = family(c, FORMAT)
    refuse_cl100k(folder.tokenizer, FORMAT)
    for wrong, key, why in (
        (kind == "arcee" and c.mlp != "relu2", "mlp", "without a gate llama.cpp knows relu2"),
        (kind == "arcee" and c.bias, "bias", "llama.cpp's Arcee has no biases"),
        (kind == "gpt2" and not c.mlp.startswith("gelu"), "mlp", "llama.cpp's GPT-2 knows gelu alone"),
    ):
        if wrong:
            value = str(getattr(c, key)).lower()
            raise ModelError(f"format={FORMAT} cannot hold model.{key}={value}: {why}", MEND)


def write_gguf(folder: ModelFolder, target: Path, dtype: str = "f32") -> None:
    """Write a model as one GGUF file, tokenizer and chat template included.

    Args:
        folder: an opened model.
        target: the file; its folder exists.
        dtype: of the matrices, `f32`, `bf16`, `f16` or `q8_0`; vectors stay f32.

    Raises:
        ModelError: llama.cpp does not compute this shape, naming the config value.
    """
    from gguf import GGUFWriter

    check_gguf(folder)
    kind = family(folder.config, FORMAT)
    arrays = whole_weights(folder)
    writer: Any = GGUFWriter(target, kind)
    _add_shape(writer, folder, kind, facts(folder, arrays))
    _add_tokenizer(writer, folder.tokenizer)
    for name, array in gguf_tensors(folder.config, kind, arrays).items():
        stored, wanted = packed(name, array, dtype)
        writer.add_tensor(name, stored, raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_gguf_folder(folder: ModelFolder, target: Path, dtype: str, sampling: SamplingConfig) -> None:
    """The GGUF file and Ollama's Modelfile; arguments and errors as of `write_gguf`, but for the target, a folder."""
    write_gguf(folder, target / FILE, dtype)
    (target / MODELFILE).write_text(modelfile(folder, sampling), encoding="utf-8")


def read_back(folder: ModelFolder, file: Path, dtype: str) -> None:
    """Compare every tensor of a file, byte for byte, with what the model's weights become in its number format.

    Raises:
        ModelError: a tensor is missing, or differs.
    """
    from gguf import GGUFReader

    expected = gguf_tensors(folder.config, family(folder.config, FORMAT), whole_weights(folder))
    found = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    for name in sorted({*expected, *found}):
        same = name in expected and name in found
        if same:
            stored, wanted = packed(name, expected[name], dtype)
            raw = found[name].data.view(np.uint8).ravel()
            same = found[name].tensor_type == wanted and np.array_equal(raw, stored.view(np.uint8).ravel())
        if not same:
            raise ModelError(f"{file.name} does not hold what was written: {name} differs", "check the disk")


def packed(name: str, array: npt.NDArray[Any], dtype: str) -> tuple[npt.NDArray[Any], Any]:
    """A tensor in its number format, and that format's type in the gguf package."""
    from gguf import GGMLQuantizationType, quants

    wanted = getattr(GGMLQuantizationType, stored_as(name, array, dtype))
    return np.ascontiguousarray(quants.quantize(array, wanted)), wanted


def stored_as(name: str, array: npt.NDArray[Any], dtype: str) -> str:
    """The number format of a tensor: vectors and positions in f32, rows that are no whole blocks of q8_0 in f16."""
    if array.ndim < 2 or name == "position_embd.weight":
        return "F32"
    return "F16" if dtype == "q8_0" and array.shape[-1] % BLOCK_Q8 else DTYPES[dtype]


def gguf_tensors(config: ModelConfig, kind: str, arrays: Arrays) -> Arrays:
    """The tensors of a model by GGUF's names, [out, in]."""
    found: Arrays = {"token_embd.weight": arrays["wte"], "output_norm.weight": arrays["final_norm.weight"]}
    if "lm_head" in arrays:
        found["output.weight"] = arrays["lm_head"]
    for i in range(config.n_layer):
        for ours, (_, theirs) in LAYER.items():
            array = arrays.get(f"layer{i}.{ours}")
            if array is None:
                continue
            if kind in ("llama", "arcee") and ours in ("attn_wq", "attn_wk", "attn_bq", "attn_bk"):
                array = interleaved(array, config.n_embd // config.n_head)
            found[f"blk.{i}.{theirs}"] = array
    return found if kind != "gpt2" else _gpt2(config, arrays, found)


def interleaved(array: npt.NDArray[np.float32], head_width: int) -> npt.NDArray[np.float32]:
    """Rows of each head in the order 0, w/2, 1, w/2 + 1, ...: rotary pairs become neighbours."""
    heads = array.reshape(-1, 2, head_width // 2, *array.shape[1:])
    return heads.swapaxes(1, 2).reshape(array.shape)


def _gpt2(config: ModelConfig, arrays: Arrays, found: Arrays) -> Arrays:
    """GPT-2's tensors: queries, keys and values in one, and biases everywhere, zeros where ours has none."""
    found = {name: a for name, a in found.items() if not name.endswith((".bias", "attn_q.weight", "attn_k.weight"))}
    found["position_embd.weight"] = arrays["wpe"]
    zeros = np.zeros(config.n_embd, np.float32)
    found["output_norm.bias"] = arrays.get("final_norm.bias", zeros)
    for i in range(config.n_layer):
        ours, theirs = f"layer{i}.", f"blk.{i}."
        del found[f"{theirs}attn_v.weight"]
        found[f"{theirs}attn_qkv.weight"] = np.concatenate([arrays[f"{ours}attn_w{x}"] for x in "qkv"])
        found[f"{theirs}attn_qkv.bias"] = np.concatenate([arrays.get(f"{ours}attn_b{x}", zeros) for x in "qkv"])
        for name, bias, size in (
            ("attn_output", "attn_bo", config.n_embd),
            ("ffn_up", "mlp_b1", len(arrays[f"{ours}mlp_fc1"])),
            ("ffn_down", "mlp_b2", config.n_embd),
            ("attn_norm", "attn_norm.bias", config.n_embd),
            ("ffn_norm", "mlp_norm.bias", config.n_embd),
        ):
            found[f"{theirs}{name}.bias"] = arrays.get(ours + bias, np.zeros(size, np.float32))
    return found


def _add_shape(writer: Any, folder: ModelFolder, kind: str, sizes: dict[str, Any]) -> None:
    c = folder.config
    writer.add_name(str(folder.meta.get("name", folder.path.name)))
    writer.add_context_length(c.block_size)
    writer.add_embedding_length(c.n_embd)
    writer.add_block_count(c.n_layer)
    writer.add_feed_forward_length(sizes["intermediate_size"])
    writer.add_head_count(c.n_head)
    writer.add_vocab_size(folder.vocab_size)
    if kind == "gpt2":
        writer.add_layer_norm_eps(c.norm_eps)
        return
    writer.add_head_count_kv(sizes["num_key_value_heads"])
    writer.add_key_length(sizes["head_dim"])
    writer.add_value_length(sizes["head_dim"])
    writer.add_rope_dimension_count(sizes["head_dim"])
    writer.add_rope_freq_base(c.rope_base)
    writer.add_layer_norm_rms_eps(c.norm_eps)


def _add_tokenizer(writer: Any, tokenizer: Tokenizer) -> None:
    """Byte-level BPE as llama.cpp has it; characters are written as such a BPE that builds each from its bytes."""
    from gguf import TokenType

    tokens, merges = char_vocabulary(tokenizer) if isinstance(tokenizer, CharTokenizer) else bpe_vocabulary(tokenizer)
    control = set(tokenizer.control.values())
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(GPT2 if isinstance(tokenizer, CharTokenizer) else divided(tokenizer))
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL if i in control else TokenType.NORMAL for i in range(len(tokens))])
    # llama.cpp wants one merge at least: this one joins nothing that a text can hold
    writer.add_token_merges(merges or ["<bos> <bos>"])
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.ends[0])
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    if tokenizer.is_chat:
        writer.add_eot_token_id(end_tokens(tokenizer)[0])
        writer.add_chat_template(CHAT_TEMPLATE)


def divided(tokenizer: Tokenizer) -> str:
    """What llama.cpp calls the way in which a BPE divides text."""
    return split_name(json.loads(tokenizer.to_json())["pre_tokenizer"])


def bpe_vocabulary(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    """Tokens by id and merges in order, in the byte-level alphabet."""
    content: Any = json.loads(tokenizer.to_json())
    by_id = {i: text for text, i in [*content["model"]["vocab"].items(), *tokenizer.control.items()]}
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in content["model"]["merges"]]
    return [by_id[i] for i in range(len(by_id))], merges


def char_vocabulary(tokenizer: CharTokenizer) -> tuple[list[str], list[str]]:
    """Characters as byte-level tokens, and the merges that put the bytes of each together, from left to right.

    A byte that begins a character never stands inside another, so no merge crosses characters.
    """
    byte = byte_alphabet()
    tokens: list[str] = []
    merges: dict[str, None] = {}
    for character in tokenizer.characters:
        spelled = [byte[b] for b in character.encode("utf-8")]
        merges |= {f"{''.join(spelled[:i])} {spelled[i]}": None for i in range(1, len(spelled))}
        tokens.append("".join(spelled))
    return [*tokens, *tokenizer.control], list(merges)


def byte_alphabet() -> list[str]:
    """The character that stands for each byte: itself where it can be printed, else one from 256 on (GPT-2's)."""
    shown = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(256, 512))
    return [chr(b if b in shown else next(spare)) for b in range(256)]


def modelfile(folder: ModelFolder, sampling: SamplingConfig) -> str:
    """Ollama's Modelfile: `ollama create NAME -f Modelfile` in the folder of the export."""
    lines = [f"FROM ./{FILE}"]
    if folder.tokenizer.is_chat:
        turns = "{{- range .Messages }}<{{ .Role }}>{{ .Content }}" + END_TURN + "{{ end }}<assistant>"
        lines += [f'TEMPLATE """{turns}"""', f'PARAMETER stop "{END_TURN}"']
    else:
        lines += ['TEMPLATE """{{ .Prompt }}"""']
    drawn = {
        "num_ctx": folder.config.block_size,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_penalty": sampling.repetition_penalty,
        "repeat_last_n": sampling.repeat_last_n,
    }
    return "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in drawn.items())]) + "\n"
