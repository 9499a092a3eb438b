"""llama.cpp loads a GGUF file and computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.model import load_weights
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError
from microgpt.export.gguf import byte_alphabet, modelfile, write_gguf
from microgpt.export.proof import prove
from microgpt.export.runtimes import LlamaCpp, Own

from .conftest import GPT2, SHAPES, Make

pytest.importorskip("gguf")


def opened(folder: Any, file: Path) -> LlamaCpp:
    pytest.importorskip("xllamacpp")
    return LlamaCpp(file, folder)


@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_gives_the_same_scores_and_greedy_tokens(name: str, make: Make, tmp_path: Path) -> None:
    folder = make("bpe", **SHAPES[name])
    file = tmp_path / "model.gguf"
    write_gguf(folder, file)
    # llama.cpp looks GELU up in a table of f16 and takes its tanh form
    tolerance = 0.01 if name.startswith("gpt2") else 1e-4
    found = prove(folder, Own(folder), opened(folder, file), tolerance)
    assert found["max_difference"] < tolerance / 4
    assert found["greedy_tokens"] == 100
    assert found["greedy_same"] == 100 or name.startswith("gpt2")


@pytest.mark.parametrize("kind", ["chat", "grown", "bytes", "char", "names"])
def test_every_tokenizer_gives_the_same_ids(kind: str, make: Make, tmp_path: Path) -> None:
    folder = make(kind)
    write_gguf(folder, tmp_path / "model.gguf")
    prove(folder, Own(folder), opened(folder, tmp_path / "model.gguf"), 1e-4)


@pytest.mark.parametrize("dtype,size,tolerance", [("f16", 2, 0.03), ("bf16", 2, 0.25), ("q8_0", 34 / 32, 0.5)])
@pytest.mark.parametrize("name", ["qwen3", "llama"])
def test_smaller_numbers_stay_near(
    name: str, dtype: str, size: float, tolerance: float, make: Make, tmp_path: Path
) -> None:
    folder = make("bpe", **SHAPES[name])
    file = tmp_path / "model.gguf"
    write_gguf(folder, file, dtype)
    found = prove(folder, Own(folder), opened(folder, file), tolerance)
    assert found["max_difference"] > 1e-5
    numbers = sum(p.numel() for p in load_weights(folder).parameters())
    assert file.stat().st_size < 1.1 * numbers * size + 20_000


def test_rows_that_are_no_whole_blocks_stay_f16(make: Make, tmp_path: Path) -> None:
    from gguf import GGUFReader

    folder = make("names", n_embd=48, mlp_hidden=64)
    write_gguf(folder, tmp_path / "model.gguf", "q8_0")
    kinds = {t.name: t.tensor_type.name for t in GGUFReader(tmp_path / "model.gguf").tensors}
    assert kinds["blk.0.attn_q.weight"] == "F16"
    assert kinds["blk.0.ffn_down.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    prove(folder, Own(folder), opened(folder, tmp_path / "model.gguf"), 0.5)


def test_a_conversation_is_rendered_with_one_bos_and_ends_at_its_turn(make: Make, tmp_path: Path) -> None:
    folder = make("chat")
    write_gguf(folder, tmp_path / "model.gguf")
    llama = opened(folder, tmp_path / "model.gguf")
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    rendered = llama._ask("apply-template", {"messages": messages})["prompt"]
    ids = llama._ask("tokenize", {"content": rendered, "add_special": True, "parse_special": True})["tokens"]
    control, encode = folder.tokenizer.control, folder.tokenizer.encode
    assert ids == [
        *(control["<bos>"], control["<system>"], *encode("Be kind."), control["<end_turn>"], control["<user>"]),
        *(*encode("Hi"), control["<end_turn>"], control["<assistant>"]),
    ]
    answer = llama._ask("v1/chat/completions", {"messages": messages, "max_tokens": 4})
    assert answer["usage"]["prompt_tokens"] == len(ids)


def test_the_modelfile_names_the_file_the_context_and_where_a_turn_ends(make: Make) -> None:
    chat, plain = (modelfile(make(kind), SamplingConfig()) for kind in ("chat", "bpe"))
    assert chat.splitlines()[0] == plain.splitlines()[0] == "FROM ./model.gguf"
    assert 'PARAMETER stop "<end_turn>"' in chat
    assert "<{{ .Role }}>{{ .Content }}<end_turn>" in chat
    assert 'TEMPLATE """{{ .Prompt }}"""' in plain
    assert "PARAMETER num_ctx 128" in chat


def test_the_byte_alphabet_is_that_of_the_tokenizers_library() -> None:
    from tokenizers import pre_tokenizers

    assert sorted(byte_alphabet()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    assert byte_alphabet()[ord(" ")] == "Ġ"


REFUSED: dict[str, dict[str, Any]] = {
    "model.mlp=relu": {"qk_norm": False, "mlp": "relu"},
    "model.bias=true": {"qk_norm": False, "mlp": "relu2", "bias": True},
    "model.mlp=relu2": {**GPT2, "mlp": "relu2"},
    "model.final_norm=false": {"final_norm": False},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_llama_cpp_does_not_compute_is_refused_by_its_key(key: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        write_gguf(make("names", **REFUSED[key]), tmp_path / "model.gguf")
    assert f"format=gguf cannot hold {key}:" in refused.value.what
    assert "format=safetensors" in refused.value.mend
    assert not list(tmp_path.iterdir())
