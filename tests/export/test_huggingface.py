"""transformers loads an export with no code of ours and computes the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.model import load_weights
from microgpt.errors import ModelError
from microgpt.export.huggingface import write_huggingface
from microgpt.export.proof import prove
from microgpt.export.runtimes import Own, Transformers

from .conftest import GPT2, SHAPES, Make

pytest.importorskip("transformers")
CLASSES = {"qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM", "arcee": "ArceeForCausalLM"}
MORE = {
    "arcee with relu and biases": {"qk_norm": False, "mlp": "relu", "bias": True},
    "arcee with gelu": {"qk_norm": False, "mlp": "gelu"},
    "gpt2 with relu2": {**GPT2, "mlp": "relu2", "mlp_hidden": 96},
}


@pytest.mark.parametrize("name", [*SHAPES, *MORE])
def test_every_shape_gives_the_same_scores_and_greedy_tokens(name: str, make: Make, tmp_path: Path) -> None:
    folder = make("bpe", **{**SHAPES, **MORE}[name])
    write_huggingface(folder, tmp_path)
    found = prove(folder, Own(folder), Transformers(tmp_path), 1e-4)
    assert found["max_difference"] < 1e-5
    assert found["greedy_same"] == found["greedy_tokens"] == 100
    architecture = json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    assert architecture == CLASSES.get(name.split()[0], "GPT2LMHeadModel")


@pytest.mark.parametrize("kind", ["chat", "grown", "bytes", "char", "names"])
def test_every_tokenizer_gives_the_same_ids(kind: str, make: Make, tmp_path: Path) -> None:
    folder = make(kind)
    write_huggingface(folder, tmp_path)
    prove(folder, Own(folder), Transformers(tmp_path), 1e-4)
    tokenizer = auto("AutoTokenizer", tmp_path)
    assert len(tokenizer) == folder.vocab_size
    ids = tokenizer("abc", add_special_tokens=False)["input_ids"]
    assert ids == folder.tokenizer.encode("abc"), "without BOS where none is asked for"
    assert tokenizer("a", "b")["input_ids"].count(folder.tokenizer.bos) == 2
    text = "abc" if kind == "names" else "a  b\n c é"
    assert tokenizer.decode(tokenizer(text)["input_ids"], skip_special_tokens=True) == text


@pytest.mark.parametrize("dtype,size,tolerance", [("f16", 2, 0.03), ("bf16", 2, 0.25)])
def test_halved_weights_stay_near(dtype: str, size: int, tolerance: float, make: Make, tmp_path: Path) -> None:
    folder = make("bpe")
    write_huggingface(folder, tmp_path, dtype)
    found = prove(folder, Own(folder), Transformers(tmp_path), tolerance)
    assert found["max_difference"] > 0
    numbers = sum(p.numel() for p in load_weights(folder).parameters())
    assert (tmp_path / "model.safetensors").stat().st_size < 1.05 * numbers * size


def test_a_conversation_is_rendered_with_one_bos_and_ends_at_its_turn(make: Make, tmp_path: Path) -> None:
    folder = make("chat")
    write_huggingface(folder, tmp_path)
    tokenizer, model = auto("AutoTokenizer", tmp_path), auto("AutoModelForCausalLM", tmp_path)
    messages = [{"role": "user", "content": "Hi"}]
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    control = folder.tokenizer.control
    wanted = [control["<user>"], *folder.tokenizer.encode("Hi"), control["<end_turn>"], control["<assistant>"]]
    assert ids == [control["<bos>"], *wanted]
    assert model.generation_config.eos_token_id == [control["<end_turn>"], control["<bos>"]]
    assert (tmp_path / "chat_template.jinja").exists()


def test_generate_works_as_it_comes(make: Make, tmp_path: Path) -> None:
    """`max_length` and the ends come from generation_config.json; a batch is padded on the left."""
    folder = make("bpe")
    write_huggingface(folder, tmp_path)
    tokenizer, model = auto("AutoTokenizer", tmp_path), auto("AutoModelForCausalLM", tmp_path)
    rows = tokenizer(["Once", "Once upon a time there was"], padding=True, return_tensors="pt")
    out = model.generate(**rows, do_sample=False)
    assert out.shape[1] <= folder.config.block_size
    alone = model.generate(**tokenizer("Once", return_tensors="pt"), do_sample=False)
    first = int((rows["attention_mask"][0] == 0).sum())
    assert out[0, first:][:40].tolist() == alone[0][:40].tolist()


REFUSED: dict[str, dict[str, Any]] = {
    "model.final_norm=false": {"final_norm": False},
    "model.norm=layernorm": {"norm": "layernorm"},
    "model.norm=rmsnorm": {"position": "learned"},
    "model.mlp=swiglu": {**GPT2, "mlp": "swiglu"},
    "model.qk_norm=true": {"mlp": "relu2"},
    "model.embed_norm=true": {**GPT2, "embed_norm": True},
    "model.n_kv_head=2": {**GPT2, "n_kv_head": 2},
    "model.bias=true": {"bias": True},
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_no_architecture_computes_is_refused_by_its_key(key: str, make: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        write_huggingface(make("names", **REFUSED[key]), tmp_path)
    assert key in refused.value.what
    assert "format=safetensors" in refused.value.mend
    assert not list(tmp_path.iterdir())


def auto(name: str, folder: Path) -> Any:
    import transformers

    return getattr(transformers, name).from_pretrained(folder, local_files_only=True)
