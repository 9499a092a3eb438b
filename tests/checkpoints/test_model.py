"""A model directory is opened with distrust: what fits its config loads, all else is one line (F1 to F5)."""

from __future__ import annotations

import json
import os
import pickle
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microgpt.checkpoints.folder import MANIFEST, META, TOKENIZER, WEIGHTS, write_folder
from microgpt.checkpoints.model import load_weights, model_files, open_model
from microgpt.checkpoints.tensors import read_arrays, read_header
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError
from microgpt.model.gpt import GPT
from microgpt.model.shapes import parameter_shapes
from microgpt.tokenizer.char import CharTokenizer

Header = dict[str, Any]


def loaded(folder: Path) -> GPT:
    return load_weights(open_model(folder))


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        loaded(folder)
    assert caught.value.exit_code == 4
    return str(caught.value)


def unsealed(folder: Path) -> Path:
    """Without its manifest, so that nothing but the files' own content can tell."""
    (folder / MANIFEST).unlink()
    return folder


def parts(path: Path) -> tuple[Header, bytes]:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def rewrite_meta(folder: Path, **changes: Any) -> None:
    meta = json.loads((folder / META).read_text())
    for key, value in changes.items():
        where = meta["model"] if key in meta["model"] else meta
        where[key] = value
    (folder / META).write_text(json.dumps(meta))


# ---- what fits loads


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
@pytest.mark.parametrize(
    "change",
    [
        {}, {"tied": True}, {"bias": True, "norm": "layernorm"}, {"position": "learned", "qk_norm": False},
        {"n_kv_head": 1, "mlp": "relu2"}, {"norm": "rmsnorm_nogain", "embed_norm": True, "final_norm": False},
    ],
    ids=str,
)  # fmt: skip
def test_what_was_written_is_what_loads(tmp_path: Path, change: dict[str, Any], dtype: str) -> None:
    config = replace(ModelConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, init="normal"), **change)
    tokenizer = CharTokenizer("abc")
    model = GPT(config, tokenizer.vocab_size)
    model.init_weights(0)
    write_folder(tmp_path / "m", model_files(model, tokenizer, {"step": 5, "note": "x"}, dtype), 5)
    opened = open_model(tmp_path / "m")
    assert opened.config == config
    assert (opened.vocab_size, opened.meta["step"], opened.meta["note"]) == (4, 5, "x")
    assert opened.tokenizer.encode("cab") == [2, 0, 1]
    again = load_weights(opened)
    assert not again.training
    kind = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    for name, parameter in model.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter.to(kind).float()), name


def test_meta_says_what_other_programs_look_for(whole: Path) -> None:
    meta = json.loads((whole / META).read_text())
    assert [meta[k] for k in ("vocab_size", "n_embd", "n_head", "n_layer", "block_size")] == [7, 8, 2, 2, 8]
    assert meta["special_tokens"] == {"<bos>": 6}


def test_the_weights_are_what_the_safetensors_library_reads(whole: Path) -> None:
    from safetensors.numpy import load_file

    header, start = read_header(whole / WEIGHTS)
    mine, theirs = read_arrays(whole / WEIGHTS, header, start), load_file(whole / WEIGHTS)
    assert set(mine) == set(theirs)
    assert all(np.array_equal(mine[name], theirs[name]) for name in mine)


# ---- F1: pickles


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.marker,))


def test_the_bomb_goes_off_when_unpickled(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Bomb(tmp_path / "marker")))
    assert (tmp_path / "marker").exists()


@pytest.mark.parametrize("suffix", [".ckpt", ".pt", ".pth", ".bin", ".pkl", ".safetensors", ""])
def test_a_pickle_is_refused_unopened(tmp_path: Path, opened_files: list[str], suffix: str) -> None:
    folder, marker = tmp_path / "m", tmp_path / "marker"
    folder.mkdir()
    path = folder / f"model{suffix}"
    torch.save({"state_dict": Bomb(marker)}, path)
    del opened_files[:]
    said = refused(path)
    assert "only safetensors and JSON are read" in said
    refused(folder)
    assert str(path) not in opened_files
    assert not marker.exists()


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER, META])
def test_a_pickle_under_a_good_name_is_refused_and_never_run(tmp_path: Path, whole: Path, name: str) -> None:
    marker = tmp_path / "marker"
    (unsealed(whole) / name).write_bytes(pickle.dumps(Bomb(marker)))
    assert name in refused(whole)
    assert not marker.exists()


# ---- F3: tensor files


def tensor_file_cases() -> dict[str, Callable[[Header, bytes], bytes]]:
    """Name to what is made of a good file's header and payload."""

    def packed(header: Header | bytes | list[Any], payload: bytes) -> bytes:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + payload

    def entry(header: Header, name: str = "wte", **changes: Any) -> Header:
        return {**header, name: {**header[name], **changes}}

    def duplicate(h: Header, p: bytes) -> bytes:
        text = json.dumps(h)
        return packed((text[:-1] + ', "wte": ' + json.dumps(h["wte"]) + "}").encode(), p)

    def duplicate_inside(h: Header, p: bytes) -> bytes:
        return packed(json.dumps(h).replace('"dtype"', '"dtype": "F32", "dtype"', 1).encode(), p)

    def number(value: bytes) -> Callable[[Header, bytes], bytes]:
        return lambda h, p: packed(h, value + p[len(value) :])

    def moved(h: Header, by: int) -> Header:
        last = max((n for n in h if n != "__metadata__"), key=lambda n: h[n]["data_offsets"])
        begin, end = h[last]["data_offsets"]
        return entry(h, last, data_offsets=[begin + by, end + by])

    def many(h: Header, p: bytes) -> bytes:
        empty = {f"t{i}": {"dtype": "F32", "shape": [0], "data_offsets": [len(p), len(p)]} for i in range(200_000)}
        return packed({**h, **empty}, p)

    def first_name(h: Header) -> str:
        return next(n for n in h if n != "__metadata__")

    shape = [7, 8]
    return {
        "duplicate key": duplicate,
        "duplicate key inside an entry": duplicate_inside,
        "NaN": number(np.float32("nan").tobytes()),
        "infinity": number(np.float32("inf").tobytes()),
        "transposed": lambda h, p: packed(entry(h, shape=shape[::-1]), p),
        "flat": lambda h, p: packed(entry(h, shape=[56]), p),
        "I32": lambda h, p: packed(entry(h, dtype="I32"), p),
        "half of the bytes": lambda h, p: packed(entry(h, dtype="BF16"), p),
        "unknown dtype": lambda h, p: packed(entry(h, dtype="F8_E4M3"), p),
        "complex": lambda h, p: packed(entry(h, dtype="C64", shape=[7, 4]), p),
        "missing": lambda h, p: packed({n: e for n, e in h.items() if n != first_name(h)}, p),
        "renamed": lambda h, p: packed(json.dumps(h).replace('"wte"', '"wtf"').encode(), p),
        "one more": lambda h, p: packed(
            {**h, "x": {"dtype": "F32", "shape": [1], "data_offsets": [len(p), len(p) + 4]}}, p + bytes(4)
        ),
        "200,000 tensors": many,
        "gap": lambda h, p: packed(moved(h, 4), p + bytes(4)),
        "overlap": lambda h, p: packed(moved(h, -4), p[:-4]),
        "two in one place": lambda h, p: packed(entry(h, "layer0.attn_wq", **h["layer0.attn_wk"]), p),
        "bytes too many": lambda h, p: packed(h, p + b"\0"),
        "bytes too few": lambda h, p: packed(h, p[:-1]),
        "no payload": lambda h, p: packed(h, b""),
        "truncated header": lambda h, p: packed(h, p)[:200],
        "truncated length": lambda h, p: packed(h, p)[:5],
        "empty": lambda h, p: b"",
        "empty header": lambda h, p: packed(b"", p),
        "header longer than the file": lambda h, p: (2**40).to_bytes(8, "little") + packed(h, p)[8:],
        "header as long as can be": lambda h, p: b"\xff" * 8 + packed(h, p)[8:],
        "header no JSON": lambda h, p: packed(b"{" * 50, p),
        "header nested deep": lambda h, p: packed(b"[" * 100_000, p),
        "header entry nested deep": lambda h, p: packed(b'{"wte":' * 50_000 + b"1" + b"}" * 50_000, p),
        "header no UTF-8": lambda h, p: packed(b'{"\xff": 1}', p),
        "header a list": lambda h, p: packed([h], p),
        "header a number of 10,000 digits": lambda h, p: packed(b"9" * 10_000, p),
        "no entries": lambda h, p: packed({}, b""),
        "entry a list": lambda h, p: packed({**h, "wte": [1, 2]}, p),
        "entry null": lambda h, p: packed({**h, "wte": None}, p),
        "no shape": lambda h, p: packed({**h, "wte": {"dtype": "F32", "data_offsets": [0, 224]}}, p),
        "shape null": lambda h, p: packed(entry(h, shape=None), p),
        "shape negative": lambda h, p: packed(entry(h, shape=[-7, -8]), p),
        "shape NaN": lambda h, p: packed(entry(h, shape=[float("nan"), 8]), p),
        "shape infinite": lambda h, p: packed(entry(h, shape=[float("inf"), 8]), p),
        "shape huge": lambda h, p: packed(entry(h, shape=[2**63, 2**63]), p),
        "shape of 400,000 huge dimensions": lambda h, p: packed(entry(h, shape=[2**63 - 1] * 400_000), p),
        "offsets backwards": lambda h, p: packed(entry(h, data_offsets=h["wte"]["data_offsets"][::-1]), p),
        "offsets negative": lambda h, p: packed(entry(h, data_offsets=[-224, 0]), p),
        "offsets three": lambda h, p: packed(entry(h, data_offsets=[0, 100, 224]), p),
        "offsets infinite": lambda h, p: packed(entry(h, data_offsets=[0, float("inf")]), p),
        "offsets far": lambda h, p: packed(entry(h, data_offsets=[0, 10**30]), p),
        "names with escapes": lambda h, p: packed({**h, "\x1b[31m\n": h["wte"]}, p),
        "a name of a megabyte": lambda h, p: packed({**h, "x" * 2**20: {**h["wte"], "dtype": "F8"}}, p),
    }


@pytest.mark.parametrize("case", tensor_file_cases())
def test_a_tensor_file_that_does_not_fit_is_refused_at_once(
    whole: Path, case: str, no_hang: Callable[[float], None]
) -> None:
    path = unsealed(whole) / WEIGHTS
    content = tensor_file_cases()[case](*parts(path))
    assert content != path.read_bytes()
    path.write_bytes(content)
    no_hang(15)
    said = refused(whole)
    assert str(path) in said
    assert len(said) < 2000


def test_a_tensor_file_that_only_looks_unusual_still_loads(whole: Path) -> None:
    path = unsealed(whole) / WEIGHTS
    before = loaded(whole).state_dict()
    header, payload = parts(path)
    text = json.dumps(dict(reversed(header.items())), indent=3).encode() + b" " * 8
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    after = loaded(whole).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["BF16", "F16", "F64"])
def test_nan_is_seen_in_every_format(whole: Path, name: str) -> None:
    from safetensors.torch import save_file

    kind = {"BF16": torch.bfloat16, "F16": torch.float16, "F64": torch.float64}[name]
    weights = {n: p.detach().to(kind) for n, p in loaded(whole).named_parameters()}
    save_file(weights, unsealed(whole) / WEIGHTS)
    loaded(whole)
    weights["wte"][3, 3] = torch.nan
    save_file(weights, whole / WEIGHTS)
    assert "wte holds NaN" in refused(whole)


# ---- files that do not fit each other


@pytest.mark.parametrize(
    "change",
    [
        {"n_layer": 1}, {"n_layer": 3}, {"n_embd": 16}, {"n_kv_head": 1}, {"n_head": 3}, {"mlp_hidden": 16},
        {"tied": True}, {"bias": True}, {"norm": "layernorm", "bias": True}, {"norm": "rmsnorm_nogain"},
        {"position": "learned"}, {"qk_norm": False}, {"mlp": "gelu"}, {"embed_norm": False}, {"final_norm": False},
        {"vocab_size": 8}, {"vocab_size": None}, {"n_layer": "many"}, {"n_layer": -1}, {"n_layer": 10**6},
        {"n_embd": 10**9}, {"norm_eps": float("nan")}, {"norm_eps": 0}, {"mlp": "tanh"}, {"format": "other"},
        {"version": 2}, {"version": None}, {"n_head": 8}, {"model": None}, {"model": []}, {"model": "n_layer"},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_does_not_fit_the_weights_is_refused(whole: Path, change: dict[str, Any]) -> None:
    rewrite_meta(unsealed(whole), **change)
    assert str(whole) in refused(whole)


@pytest.mark.parametrize("change", [{"n_head": 8}, {"n_head": 4, "n_kv_head": 3}], ids=str)
def test_a_config_that_no_model_can_have_is_refused_even_where_the_shapes_fit(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Without qk-norm no tensor's shape tells the number of heads; rope needs an even head width."""
    tokenizer = CharTokenizer("abc")
    config = ModelConfig(n_layer=1, n_head=2, n_embd=8, block_size=8, qk_norm=False)
    odd = replace(config, **change)
    model = GPT(odd if "n_kv_head" in change else config, tokenizer.vocab_size)
    model.init_weights(0)
    write_folder(tmp_path / "m", model_files(model, tokenizer, {}), 1)
    rewrite_meta(unsealed(tmp_path / "m"), **change)
    refused(tmp_path / "m")


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER, META])
def test_a_missing_file_is_named(whole: Path, name: str) -> None:
    (whole / name).unlink()
    assert name in refused(whole)
    unsealed(whole)
    assert name in refused(whole)


@pytest.mark.parametrize("what", ["nothing", "empty folder", "FIFO", "loop"])
def test_what_is_no_model_is_refused(tmp_path: Path, what: str, no_hang: Callable[[float], None]) -> None:
    path = tmp_path / "m"
    if what == "empty folder":
        path.mkdir()
    elif what == "FIFO":
        os.mkfifo(path)
    elif what == "loop":
        path.symlink_to(path)
    no_hang(15)
    assert str(path) in refused(path)


# ---- F4: tokenizers


@pytest.mark.parametrize(
    "change",
    [
        "", "{}", "[]", "null", "[" * 100_000,
        {"vocab": {}}, {"vocab": {"a": 0, "b": 2}}, {"vocab": {"a": 1}}, {"vocab": {"a": "0"}},
        {"vocab": {"a": None}}, {"vocab": {"a": 10**9}}, {"vocab": {"b": 0, "a": 1}}, {"vocab": {"ab": 0}},
        {"vocab": []}, {"type": "Unigram"}, {"type": None},
    ],
    ids=lambda c: str(c)[:40],
)  # fmt: skip
def test_a_tokenizer_with_gaps_or_of_another_kind_is_refused(whole: Path, change: str | dict[str, Any]) -> None:
    path = unsealed(whole) / TOKENIZER
    if isinstance(change, str):
        path.write_text(change)
    else:
        content = json.loads(path.read_text())
        content["model"].update(change)
        path.write_text(json.dumps(content))
    assert str(path) in refused(whole)


def test_ids_beyond_the_embedding_are_refused(whole: Path) -> None:
    (unsealed(whole) / TOKENIZER).write_text(CharTokenizer("abcd é\n").to_json())
    refused(whole)
    rewrite_meta(whole, vocab_size=8)
    assert "wte" in refused(whole)


# ---- F5: configs that ask for the world

HUGE = """
import sys, time
from pathlib import Path
from microgpt.checkpoints.model import load_weights, open_model
from microgpt.errors import ModelError
def peak_memory_mb():
    import re, resource
    if sys.platform == "linux":  # ru_maxrss would be that of the process that started this one
        return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
if sys.argv[2] == "load":
    import torch, microgpt.model.gpt
before, started = peak_memory_mb(), time.monotonic()
try:
    folder = open_model(Path(sys.argv[1]))
    load_weights(folder)
except ModelError as error:
    print(time.monotonic() - started, peak_memory_mb() - before, "torch" in sys.modules, error, sep="\\n")
"""


@pytest.mark.parametrize(
    ("change", "stage"),
    [
        ({"n_layer": 10**6}, "open"),
        ({"n_layer": 1024}, "open"),
        ({"n_embd": 65536, "block_size": 2**20, "mlp_hidden": 2**20}, "load"),
    ],
    ids=str,
)
def test_a_config_that_asks_for_the_world_costs_neither_time_nor_memory(
    whole: Path, change: dict[str, Any], stage: str
) -> None:
    rewrite_meta(unsealed(whole), **change)
    done = subprocess.run(
        [sys.executable, "-c", HUGE, str(whole), stage], capture_output=True, text=True, check=True, timeout=240
    )
    seconds, megabytes, torch_loaded, error = done.stdout.split("\n", 3)
    assert float(seconds) < 5
    assert float(megabytes) < 100
    assert stage == "load" or torch_loaded == "False"
    assert str(whole) in error


def test_a_forged_last_layer_does_not_make_a_thousand_layers(whole: Path, no_hang: Callable[[float], None]) -> None:
    path = unsealed(whole) / WEIGHTS
    header, payload = parts(path)
    text = json.dumps(header).replace('"layer1.', '"layer1023.').encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + payload)
    rewrite_meta(whole, n_layer=1024)
    no_hang(20)
    assert "misses layer1" in refused(whole)


# ---- mutations

NASTY: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 0.5, float("nan"), float("inf"), "", "x", "\ud800", "\x1b[2J", [], {},
    [[]], {"a": 1}, "<bos>", "F32", "BF16", [8, 8], ["a", "b"], "auto", 3, 4, 6, 7, 9,
]  # fmt: skip


def mutated_json(value: Any, draw: random.Random) -> Any:
    """The value with one node, anywhere, replaced, removed, renamed or doubled."""
    if isinstance(value, (dict, list)) and value and draw.random() < 0.85:
        copy = dict(value) if isinstance(value, dict) else list(value)
        key = draw.choice(list(copy)) if isinstance(copy, dict) else draw.randrange(len(copy))
        what = draw.random()
        if what < 0.7:
            copy[key] = mutated_json(copy[key], draw)
        elif what < 0.85:
            del copy[key]
        elif isinstance(copy, dict):
            copy[draw.choice(["x", "", f"{key}2", "layer2.attn_wq"])] = copy.pop(key)
        else:
            copy.insert(key, copy[key])
        return copy
    return draw.choice(NASTY)


def mutated_bytes(content: bytes, draw: random.Random) -> bytes:
    """The content with a flipped bit, a cut, a doubled, an overwritten or an inserted stretch."""
    changed = bytearray(content)
    at = draw.randrange(len(changed))
    end = min(len(changed), at + draw.choice([1, 2, 8, 100]))
    what = draw.randrange(6)
    if what == 0:
        changed[at] ^= 1 << draw.randrange(8)
    elif what == 1:
        del changed[at:]
    elif what == 2:
        del changed[at:end]
    elif what == 3:
        changed[at:at] = changed[at:end]
    elif what == 4:
        changed[at:end] = draw.randbytes(end - at)
    else:
        changed[at:at] = draw.randbytes(end - at)
    return bytes(changed)


def mutated(name: str, content: bytes, draw: random.Random) -> bytes:
    if draw.random() < 0.5:
        return mutated_bytes(content, draw)
    if name == WEIGHTS:
        length = int.from_bytes(content[:8], "little")
        header = json.dumps(mutated_json(json.loads(content[8 : 8 + length]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    return json.dumps(mutated_json(json.loads(content), draw)).encode()


def outcome(folder: Path) -> dict[str, torch.Tensor] | None:
    """The weights of a model that loads and works, or None where it is refused."""
    try:
        opened = open_model(folder)
        model = load_weights(opened)
    except ModelError:
        return None
    with torch.no_grad():
        model(torch.tensor([[0, 1, 2]]))
    opened.tokenizer.decode([0, 1, 2])
    return model.state_dict()


@pytest.mark.parametrize("name", [WEIGHTS, TOKENIZER, META, MANIFEST])
def test_a_mutated_file_under_a_manifest_is_refused_or_the_same_model(
    whole: Path, name: str, no_hang: Callable[[float], None]
) -> None:
    good = (whole / name).read_bytes()
    expected = outcome(whole)
    assert expected is not None
    draw = random.Random(f"sealed {name}")
    refusals = 0
    for number in range(500):
        (whole / name).write_bytes(mutated(name, good, draw))
        no_hang(15)
        found = outcome(whole)
        refusals += found is None
        same = found is not None and all(torch.equal(found[n], expected[n]) for n in expected)
        assert found is None or same, f"mutation {number}"
    assert refusals > 400


@pytest.mark.parametrize(
    ("kind", "name"), [("char", WEIGHTS), ("char", TOKENIZER), ("char", META), ("bpe", TOKENIZER)]
)
def test_a_mutated_file_without_a_manifest_is_refused_or_a_model_that_works(
    tmp_path: Path,
    whole_files: dict[str, dict[str, bytes]],
    kind: str,
    name: str,
    no_hang: Callable[[float], None],
) -> None:
    contents = whole_files[kind]
    folder = tmp_path / "m"
    folder.mkdir()
    for file, content in contents.items():
        (folder / file).write_bytes(content)
    assert outcome(folder) is not None
    draw = random.Random(f"{kind} {name}")
    refusals = 0
    for _ in range(500):
        (folder / name).write_bytes(mutated(name, contents[name], draw))
        no_hang(15)
        refusals += outcome(folder) is None
    assert refusals > 100


@pytest.mark.parametrize("name", [TOKENIZER, META, WEIGHTS])
def test_json_of_any_depth_is_refused_and_no_crash(whole: Path, name: str) -> None:
    unsealed(whole)
    good = (whole / META).read_text()
    for depth in (*range(850, 1010, 5), 5_000):
        deep = "[" * depth + "]" * depth
        if name == META:
            (whole / META).write_text(good.replace('"n_layer": 2,\n  "n_head"', f'"n_layer": {deep}, "n_head"'))
            (whole / META).write_text(good.replace('"norm": "rmsnorm"', f'"norm": {deep}'))
        elif name == TOKENIZER:
            (whole / TOKENIZER).write_text(f'{{"model": {{"type": {deep}}}}}')
        else:
            text = f'{{"wte": {{"dtype": {deep}, "shape": [1], "data_offsets": [0, 4]}}}}'.encode()
            (whole / WEIGHTS).write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        started = time.monotonic()
        refused(whole)
        assert time.monotonic() - started < 15


def test_shapes_are_worked_out_from_the_config_alone() -> None:
    huge = ModelConfig(n_layer=1, n_embd=65536, n_head=1, block_size=2**20, mlp_hidden=2**20)
    assert parameter_shapes(huge, 200_000)["layer0.mlp_fc1"] == (2**20, 65536)
