"""Models of other programs become model directories that compute the same, or are refused by what cannot be so."""

from __future__ import annotations

import json
import pickle
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import microgpt
from microgpt.checkpoints.folder import verify
from microgpt.checkpoints.model import ModelFolder, load_weights, open_model, read_weights
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError, UsageError
from microgpt.export.huggingface import write_huggingface
from microgpt.export.importing import import_model
from microgpt.export.proof import TORTURE, prove
from microgpt.export.runtimes import Own, Transformers, installed
from microgpt.export.write import export_model

from .conftest import SHAPES, Make, texts

transformers: Any = pytest.importorskip("transformers")
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
ROTARY = {**SIZES, "max_position_embeddings": 128, "head_dim": 16}
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 128}
#: models that transformers makes itself: class of the config and of the model, and what is peculiar to them
MADE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", "LlamaForCausalLM", {**ROTARY, "rope_theta": 500.0}),
    "llama with biases of attention, grouped heads, tied": (
        "LlamaConfig",
        "LlamaForCausalLM",
        {**ROTARY, "num_key_value_heads": 2, "attention_bias": True, "tie_word_embeddings": True},
    ),
    "qwen3": ("Qwen3Config", "Qwen3ForCausalLM", {**ROTARY, "num_key_value_heads": 1}),
    "qwen3 with biases": (
        "Qwen3Config",
        "Qwen3ForCausalLM",
        {**ROTARY, "num_key_value_heads": 4, "attention_bias": True},
    ),
    "arcee": ("ArceeConfig", "ArceeForCausalLM", {**ROTARY, "mlp_bias": True}),
    "gpt2 as it was published": ("GPT2Config", "GPT2LMHeadModel", GPT2),
    "gpt2 with nanogpt's gelu, untied": (
        "GPT2Config",
        "GPT2LMHeadModel",
        {**GPT2, "activation_function": "gelu", "n_inner": 80, "tie_word_embeddings": False},
    ),
}  # fmt: skip


def byte_level(specials: list[str], split: Any = None) -> Any:
    """A byte-level BPE as the tokenizers library trains it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    fast = Tokenizer(models.BPE())
    fast.pre_tokenizer = split or pre_tokenizers.ByteLevel(add_prefix_space=False)
    fast.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=specials, initial_alphabet=alphabet, show_progress=False
    )
    fast.train_from_iterator(texts(), trainer=trainer)
    return fast


def made(folder: Path, name: str, vocab_size: int = 400, **more: Any) -> Any:
    """A random model of transformers, every number of it drawn, with a tokenizer that it saves itself."""
    config_class, model_class, shape = MADE[name]
    torch.manual_seed(7)
    shape = {**shape, "vocab_size": vocab_size, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None, **more}
    model = getattr(transformers, model_class)(getattr(transformers, config_class)(**shape))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    fast = byte_level(["<|begin|>", "<|end|>"])
    whole = transformers.PreTrainedTokenizerFast(tokenizer_object=fast, bos_token="<|begin|>", eos_token="<|end|>")
    whole.save_pretrained(folder)
    return model.eval()


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    made(tmp_path / "llama", "llama")
    return tmp_path / "llama"


@pytest.mark.parametrize("name", MADE)
def test_a_model_of_transformers_gives_the_same_logits_and_ids(name: str, tmp_path: Path) -> None:
    theirs = made(tmp_path / "theirs", name)
    opened = import_model(tmp_path / "theirs", tmp_path / "ours")
    verify(tmp_path / "ours")
    ids = torch.randint(0, 400, (3, 100), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        wanted, found = theirs(ids).logits, load_weights(opened)(ids)
    assert wanted.std() > 0.1
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs", local_files_only=True)
    assert opened.tokenizer.encode(TORTURE) == tokenizer(TORTURE, add_special_tokens=False)["input_ids"]
    assert opened.tokenizer.control == {"<bos>": 0, "<eos>": 1}


def test_an_imported_model_is_exported_and_proved_like_any_other(tmp_path: Path) -> None:
    made(tmp_path / "theirs", "gpt2 as it was published")
    opened = import_model(tmp_path / "theirs", tmp_path / "ours")
    (tmp_path / "again").mkdir()
    write_huggingface(opened, tmp_path / "again")
    assert prove(opened, Own(opened), Transformers(tmp_path / "again"), 1e-4)["greedy_same"] == 100
    before = load_file(tmp_path / "theirs" / "model.safetensors")
    after = load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()
    for key, tensor in before.items():
        assert torch.equal(tensor, after[key]), key
    assert json.loads((tmp_path / "again" / "config.json").read_text())["eos_token_id"] == 1


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("kind", ["bpe", "chat", "char"])
def test_an_export_comes_back_bit_by_bit(name: str, kind: str, make: Make, tmp_path: Path) -> None:
    """What the export wrote out because the format has it (gains of 1, biases of 0) is there in the second round."""
    folder = make(kind, **SHAPES[name])
    (tmp_path / "out").mkdir()
    write_huggingface(folder, tmp_path / "out")
    back = import_model(tmp_path / "out", tmp_path / "back")
    assert back.tokenizer.encode(TORTURE) == folder.tokenizer.encode(TORTURE)
    assert back.tokenizer.control == folder.tokenizer.control
    old, new = read_weights(folder), read_weights(back)
    for key in new:
        if key not in old:
            assert np.all(new[key] == (0 if "bias" in key or "_b" in key else 1)) or folder.config.embed_norm, key
        elif key != "wte" or not folder.config.embed_norm:
            assert np.array_equal(old[key], new[key]), key
    (tmp_path / "two").mkdir()
    write_huggingface(back, tmp_path / "two")
    for file in ("model.safetensors", "tokenizer.json", "config.json"):
        assert (tmp_path / "two" / file).read_bytes() == (tmp_path / "out" / file).read_bytes(), file


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_halved_weights_stay_halved(dtype: str, make: Make, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_huggingface(make("bpe"), tmp_path / "out", dtype)
    back = import_model(tmp_path / "out", tmp_path / "back")
    assert back.meta["dtype"] == dtype
    kept = load_file(tmp_path / "out" / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
    assert np.array_equal(read_weights(back)["layer1.mlp_fc1"], kept.float().numpy())


def test_it_writes_and_talks_in_the_light_engine(llama: Path, tmp_path: Path, make: Make) -> None:
    import_model(llama, tmp_path / "ours")
    model = microgpt.load(tmp_path / "ours", device="cpu", compiled="never")
    assert len(model.generate("Once", 3, max_new_tokens=20)) == 3
    (tmp_path / "chat").mkdir()
    write_huggingface(make("chat"), tmp_path / "chat")
    import_model(tmp_path / "chat", tmp_path / "talks")
    reply = microgpt.load(tmp_path / "talks", device="cpu", compiled="never").chat("Hello", max_new_tokens=5)
    assert reply.tokens <= 5


def test_a_text_ends_where_the_source_ends_it(llama: Path, tmp_path: Path) -> None:
    opened = import_model(llama, tmp_path / "ours")
    model = microgpt.load(tmp_path / "ours", device="cpu", compiled="never")
    assert opened.tokenizer.ends == [1, 0]
    ends = {s.finish for s in model.samples("", 12, temperature=3.0, top_k=0, top_p=1.0, max_new_tokens=100)}
    weights = load_weights(opened)
    assert ends <= {"end", "length"}
    with torch.no_grad():
        weights.head[1] = 100 * weights.hidden(torch.tensor([[0]]))[0, -1]
    from microgpt.inference.generate import generate
    from microgpt.inference.torch_backend import engine_of

    (sample,) = generate(engine_of(weights, 1), opened.tokenizer, SamplingConfig(temperature=0), samples=1)
    assert (sample.text, sample.finish) == ("", "end")


def test_weights_in_several_files_are_put_together(llama: Path, tmp_path: Path) -> None:
    whole = import_model(llama, tmp_path / "whole")
    tensors = load_file(llama / "model.safetensors")
    names = sorted(tensors)
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, kept in parts.items():
        save_file({n: tensors[n] for n in kept}, llama / file)
    (llama / "model.safetensors").unlink()
    index = {"weight_map": {n: file for file, kept in parts.items() for n in kept}}
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    parted = import_model(llama, tmp_path / "parted")
    a, b = read_weights(whole), read_weights(parted)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    index["weight_map"][names[0]] = "../llama/one.safetensors"
    (llama / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "no file here" in refused(llama, tmp_path / "out")


def test_masks_that_old_files_hold_and_a_bare_gpt2_are_read(tmp_path: Path) -> None:
    """The files of GPT-2 as it was published: without `transformer.`, and with the masks of attention."""
    theirs = made(tmp_path / "theirs", "gpt2 as it was published")
    file = tmp_path / "theirs" / "model.safetensors"
    tensors = {k.removeprefix("transformer."): v for k, v in load_file(file).items()}
    tensors["h.0.attn.bias"] = torch.ones(1, 1, 128, 128).tril()
    save_file(tensors, file)
    opened = import_model(tmp_path / "theirs", tmp_path / "ours")
    ids = torch.arange(50)[None]
    with torch.inference_mode():
        torch.testing.assert_close(load_weights(opened)(ids), theirs(ids).logits, atol=1e-5, rtol=1e-5)


def test_ids_without_a_token_become_control_tokens(tmp_path: Path) -> None:
    made(tmp_path / "theirs", "llama", vocab_size=448)
    opened = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert opened.vocab_size == 448
    assert opened.tokenizer.decode([447, 300]) == opened.tokenizer.decode([300])
    assert any("48 ids" in note for note in opened.meta["imported"]["notes"])
    made(tmp_path / "fewer", "llama", vocab_size=390)
    assert "has 400 tokens, the model 390" in refused(tmp_path / "fewer", tmp_path / "out")


@pytest.mark.parametrize("kind", ["digits", "llama 3", "qwen 2"])
def test_known_ways_to_divide_text_are_kept(kind: str, llama: Path, tmp_path: Path) -> None:
    from tokenizers import Regex, pre_tokenizers

    from microgpt.tokenizer.splits import PATTERNS

    pre: Any = pre_tokenizers
    if kind == "digits":
        parts = [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
    else:
        pattern = Regex(list(PATTERNS)[["llama 3", "qwen 2"].index(kind)])
        parts = [pre.Split(pattern, "isolated"), pre.ByteLevel(add_prefix_space=False, use_regex=False)]
    fast = byte_level(["<|begin|>", "<|end|>"], pre.Sequence(parts))
    fast.save(str(llama / "tokenizer.json"))
    opened = import_model(llama, tmp_path / "ours")
    assert opened.tokenizer.encode(TORTURE) == fast.encode(TORTURE).ids
    assert opened.tokenizer.decode(opened.tokenizer.encode(TORTURE)) == TORTURE
    if installed("gguf") and installed("xllamacpp"):  # llama.cpp knows each of them by a name
        proof = export_model(opened, tmp_path / "gguf", "gguf", "f32", "# a card\n", SamplingConfig())
        assert proof["text_tokens"] > 100


# ---- prior art's own directory


def prior_art(folder: Path, make: Make) -> ModelFolder:
    """A folder as prior art B writes it, and the model of this project that it is."""
    shape = {"norm": "rmsnorm_nogain", "embed_norm": True, "final_norm": False, "position": "learned"}
    own = make("chat", qk_norm=False, mlp="relu", **shape)
    folder.mkdir()
    for name in ("weights.safetensors", "tokenizer.json"):
        shutil.copy(own.path / name, folder / name)
    keys = ("vocab_size", "n_embd", "n_head", "n_layer", "block_size")
    meta = {key: own.meta[key] for key in keys} | {"special_tokens": ["<bos>", "<user>", "<assistant>", "<end_turn>"]}
    (folder / "meta.json").write_text(json.dumps(meta))
    return own


def test_prior_arts_directory_is_read(make: Make, tmp_path: Path) -> None:
    own = prior_art(tmp_path / "theirs", make)
    opened = import_model(tmp_path / "theirs", tmp_path / "ours")
    assert opened.config.mlp == "relu"
    a, b = read_weights(own), read_weights(opened)
    assert a.keys() == b.keys()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert opened.tokenizer.is_chat
    ids = torch.arange(100)[None]
    with torch.inference_mode():
        assert torch.equal(load_weights(own)(ids), load_weights(opened)(ids))


def test_a_model_without_a_system_token_says_so(make: Make, tmp_path: Path) -> None:
    prior_art(tmp_path / "theirs", make)
    path = tmp_path / "theirs" / "tokenizer.json"
    path.write_text(path.read_text().replace('"<system>"', '"<other>"'))
    import_model(tmp_path / "theirs", tmp_path / "ours")
    model = microgpt.load(tmp_path / "ours", device="cpu", compiled="never")
    assert model.chat("Hello", max_new_tokens=3).tokens <= 3
    with pytest.raises(UsageError, match="no system turn"):
        model.chat([{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}])


# ---- what is refused


def refused(source: Path, target: Path) -> str:
    """The line that an import ends with; nothing may be left behind."""
    with pytest.raises(ModelError) as caught:
        import_model(source, target)
    assert caught.value.exit_code == 4
    assert not target.exists()
    return str(caught.value)


#: value of config.json that cannot be expressed: how the line names it
CONFIGS: list[tuple[str, Any, str]] = [
    ("model_type", "mistral", "model_type=mistral"),
    ("model_type", None, "model_type=null"),
    ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling.rope_type=llama3"),
    ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling.rope_type=linear"),
    ("rope_parameters", {"rope_type": "yarn", "rope_theta": 1e4}, "rope_parameters.rope_type=yarn"),
    ("rope_parameters", {"rope_theta": 1e4, "partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5"),
    ("rope_parameters", [1], "rope_parameters=[1]"),
    ("use_sliding_window", True, "use_sliding_window=true"),
    ("layer_types", ["full_attention", "sliding_attention"], "sliding_attention"),
    ("hidden_act", "gelu", "hidden_act=gelu"),
    ("head_dim", 32, "head_dim=32"),
    ("num_key_value_heads", 3, "n_kv_head"),
    ("num_hidden_layers", 3, "misses layer2.attn_wq"),
    ("num_hidden_layers", 1, "unknown layer1"),
    ("num_hidden_layers", 10**9, "n_layer"),
    ("hidden_size", 128, "head_dim"),
    ("hidden_size", "64", "hidden_size=64: a number is needed"),
    ("intermediate_size", 64, "mlp_fc1"),
    ("rms_norm_eps", 0, "norm_eps"),
    ("tie_word_embeddings", True, "tie_word_embeddings=true"),
    ("quantization_config", {"quant_method": "gptq"}, "quantization_config"),
    ("auto_map", {"AutoModel": "code.py"}, "auto_map"),
    ("vocab_size", 401, "vocab_size=401"),
]  # fmt: skip


@pytest.mark.parametrize("key, value, named", CONFIGS, ids=lambda v: str(v)[:40])
def test_what_cannot_be_expressed_is_refused_by_its_value(
    key: str, value: Any, named: str, llama: Path, tmp_path: Path
) -> None:
    change(llama / "config.json", lambda content: content.update({key: value}))
    assert named in refused(llama, tmp_path / "out")


def change(path: Path, how: Callable[[Any], None]) -> None:
    content = json.loads(path.read_text())
    how(content)
    path.write_text(json.dumps(content))


def put(*path: Any, value: Any) -> Callable[[Any], None]:
    def changed(content: Any) -> None:
        for step in path[:-1]:
            content = content[step]
        content[path[-1]] = value

    return changed


TOKENIZERS: list[tuple[Callable[[Any], None], str]] = [
    (put("normalizer", value={"type": "NFC"}), "normalizer=NFC"),
    (put("model", "type", value="Unigram"), "model.type=Unigram"),
    (put("model", "byte_fallback", value=True), "model.byte_fallback=true"),
    (put("pre_tokenizer", value={"type": "Metaspace", "replacement": "_"}), "pre_tokenizer=Metaspace"),
    (put("pre_tokenizer", value=None), "pre_tokenizer=null"),
    (put("pre_tokenizer", "add_prefix_space", value=True), "pre_tokenizer=ByteLevel"),
    (put("model", "vocab", "日", value=5), "'日'"),
    (put("added_tokens", 1, "special", value=False), "<|end|>"),
    (put("added_tokens", value=[]), "bos_token_id=0"),
    (put("model", value=[]), "damaged"),
    (put("decoder", value={"type": "Fuse"}), "byte-level"),
]


@pytest.mark.parametrize("how, named", TOKENIZERS, ids=[t[1] for t in TOKENIZERS])
def test_a_tokenizer_that_would_read_other_ids_is_refused(
    how: Callable[[Any], None], named: str, llama: Path, tmp_path: Path
) -> None:
    change(llama / "tokenizer.json", how)
    assert named in refused(llama, tmp_path / "out")


def test_an_expression_that_nobody_knows_is_not_run(llama: Path, tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    sequence = {"type": "Sequence", "pretokenizers": [split, last]}
    change(llama / "tokenizer.json", put("pre_tokenizer", value=sequence))
    assert "divides text in an unknown way" in refused(llama, tmp_path / "out")


def test_a_gate_with_a_bias_is_refused_and_one_of_zeros_is_nothing(tmp_path: Path) -> None:
    made(tmp_path / "theirs", "llama", mlp_bias=True)
    assert "mlp_bias=true" in refused(tmp_path / "theirs", tmp_path / "out")
    file = tmp_path / "theirs" / "model.safetensors"
    tensors = load_file(file)
    save_file({k: torch.zeros_like(v) if "gate_proj.bias" in k else v for k, v in tensors.items()}, file)
    import_model(tmp_path / "theirs", tmp_path / "out")


class Bomb:
    def __reduce__(self) -> Any:
        return open, ("exploded", "w")


def test_a_pickle_is_refused_unopened(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (llama / "model.safetensors").unlink()
    (llama / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    said = refused(llama, tmp_path / "out")
    assert "pytorch_model.bin" in said
    assert "only safetensors and JSON" in said
    assert "only safetensors and JSON" in refused(llama / "pytorch_model.bin", tmp_path / "out")
    assert not (tmp_path / "exploded").exists()


def test_what_is_no_model_is_one_line(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert "holds no model.safetensors" in refused(tmp_path / "empty", tmp_path / "out")
    assert "does not exist" in refused(tmp_path / "nowhere", tmp_path / "out")
    (llama / "tokenizer.json").rename(llama / "elsewhere.json")
    assert "no tokenizer.json" in refused(llama, tmp_path / "out")
    (llama / "config.json").write_text("[")
    assert "is not JSON" in refused(llama, tmp_path / "out")


def test_nan_and_a_truncated_file_are_refused(llama: Path, tmp_path: Path) -> None:
    file = llama / "model.safetensors"
    tensors = load_file(file)
    tensors["model.norm.weight"][3] = float("nan")
    save_file(tensors, file)
    assert "NaN" in refused(llama, tmp_path / "out")
    file.write_bytes(file.read_bytes()[:-9])
    assert "model.safetensors" in refused(llama, tmp_path / "out")


def test_a_model_of_this_project_and_a_folder_with_something_in_it_are_refused(
    make: Make, llama: Path, tmp_path: Path
) -> None:
    assert "use it as it is" in refused(make("bpe").path, tmp_path / "out")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_bytes(b"mine")
    with pytest.raises(UsageError, match="holds something"):
        import_model(llama, tmp_path / "photos")
    assert [p.name for p in (tmp_path / "photos").iterdir()] == ["one.jpg"]


def outcome(source: Path, target: Path) -> str:
    """The line of the model error that an import ends with, or nothing."""
    try:
        import_model(source, target)
    except ModelError as error:
        return str(error)
    return ""


def test_hundreds_of_mutated_configs_and_tokenizers_end_as_one_line_or_as_a_model(
    llama: Path, tmp_path: Path
) -> None:
    """Whatever a value becomes: no other exception, and what is written can be opened."""
    chance = random.Random(5)
    odd = [
        None,
        -1,
        0,
        1,
        2,
        3.5,
        1e400,
        float("nan"),
        10**30,
        True,
        False,
        "",
        "x",
        "64",
        [],
        [0],
        {},
        {"type": "x"},
    ]
    originals = {name: (llama / name).read_text() for name in ("config.json", "tokenizer.json")}
    written = 0
    for number in range(300):
        name = chance.choice(sorted(originals))
        content = json.loads(originals[name])
        place = content
        if name == "tokenizer.json" and chance.random() < 0.8:
            place = content[chance.choice(["model", "pre_tokenizer", "decoder"])]
            if chance.random() < 0.3:
                place = content["added_tokens"][0]
        place[chance.choice(sorted(place))] = chance.choice(odd)
        for other, text in originals.items():
            (llama / other).write_text(json.dumps(content) if other == name else text)
        target = tmp_path / f"out{number}"
        if line := outcome(llama, target):
            assert "\n" not in line
            assert not target.exists()
            continue
        load_weights(open_model(target))
        shutil.rmtree(target)
        written += 1
    assert 20 < written < 280
