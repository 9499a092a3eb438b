"""An export gets its name when it is proved; what fails the proof is never seen, and what stood there stands."""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import sys
from pathlib import Path

import pytest

from microgpt.checkpoints.folder import verify
from microgpt.checkpoints.model import ModelFolder, read_weights
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError, UsageError
from microgpt.export.formats import FORMATS, wanted_formats
from microgpt.export.write import export_model
from microgpt.files import sha256_file

from .conftest import GPT2, Make

SAMPLING = SamplingConfig(temperature=0.3, top_k=7)
#: the file with the weights
WEIGHTS = {"safetensors": "weights.safetensors", "huggingface": "model.safetensors"}
WEIGHTS |= {"gguf": "model.gguf", "onnx": "model.onnx"}


def export(folder, target: Path, name: str, dtype: str = "f32") -> dict:
    return export_model(folder, target, name, dtype, "# a card\n", SAMPLING)


def damage(folder: ModelFolder, file: Path) -> None:
    """Make one weight 64 times as large, wherever in the file it stands."""
    weight = float(read_weights(folder)["layer1.mlp_fc1"][3, 5])
    content = file.read_bytes()
    assert content.count(struct.pack("<f", weight)) == 1
    file.write_bytes(content.replace(struct.pack("<f", weight), struct.pack("<f", 64 * weight)))


@pytest.mark.parametrize("name", FORMATS)
def test_the_folder_holds_card_proof_and_checksums(name: str, make: Make, tmp_path: Path) -> None:
    folder = make("chat")
    proof = export(folder, tmp_path / "out", name)
    manifest = verify(tmp_path / "out")
    card, told = (
        (tmp_path / "out" / "README.md").read_text(),
        json.loads((tmp_path / "out" / "proof.json").read_text()),
    )
    assert told == proof
    assert proof["prompts"] == 64
    assert proof["greedy_tokens"] == 100
    assert proof["max_difference"] <= proof["tolerance"]
    file = tmp_path / "out" / WEIGHTS[name]
    assert told["files"][file.name] == {"bytes": file.stat().st_size, "sha256": sha256_file(file)}
    for word in (
        told["runtime"],
        sha256_file(file),
        f"{told['max_difference']:.2g} nats",
        f"{file.stat().st_size:,}",
    ):
        assert word in card
    assert set(manifest["files"]) == {p.name for p in (tmp_path / "out").iterdir()} - {"MANIFEST.json"}
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_weight_fails_the_proof_and_leaves_nothing(
    name: str, make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, form = make("bpe"), FORMATS[name]

    def damaging(opened, target, dtype, sampling) -> None:
        form.write(opened, target, dtype, sampling)
        damage(opened, target / WEIGHTS[name])

    export(folder, tmp_path / "stood", name)
    before = {p.name: p.read_bytes() for p in (tmp_path / "stood").iterdir()}
    monkeypatch.setitem(FORMATS, name, dataclasses.replace(form, write=damaging))
    for target in ("new/out", "stood"):
        with pytest.raises(ModelError) as failed:
            export(folder, tmp_path / target, name)
        assert failed.value.exit_code == 4
    assert {p.name: p.read_bytes() for p in (tmp_path / "stood").iterdir()} == before
    assert os.listdir(tmp_path / "new") == []


def test_a_tokenizer_that_reads_otherwise_fails_the_proof(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = FORMATS["huggingface"]

    def spoiling(opened, target, dtype, sampling) -> None:
        form.write(opened, target, dtype, sampling)
        content = json.loads((target / "tokenizer.json").read_text())
        content["model"]["merges"].pop(40)
        (target / "tokenizer.json").write_text(json.dumps(content))

    monkeypatch.setitem(FORMATS, "huggingface", dataclasses.replace(form, write=spoiling))
    with pytest.raises(ModelError, match="reads the same text as other tokens"):
        export(make("bpe"), tmp_path / "out", "huggingface")
    assert os.listdir(tmp_path) == []


def test_without_llama_cpp_the_file_is_read_back_and_the_report_says_so(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "xllamacpp", None)  # as if it were not installed
    folder, form = make("bpe"), FORMATS["gguf"]
    for dtype in form.tolerance:
        proof = export(folder, tmp_path / dtype, "gguf", dtype)
        assert "prompts" not in proof
        card = (tmp_path / dtype / "README.md").read_text()
        assert "xllamacpp) is not installed" in card
        assert "byte for byte" in card

    def damaging(opened, target, dtype, sampling) -> None:
        form.write(opened, target, dtype, sampling)
        damage(opened, target / "model.gguf")

    monkeypatch.setitem(FORMATS, "gguf", dataclasses.replace(form, write=damaging))
    with pytest.raises(ModelError, match="does not hold what was written"):
        export(folder, tmp_path / "out", "gguf")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name,modules", [(name, form.needs) for name, form in FORMATS.items() if form.needs])
def test_a_missing_library_is_one_line_with_the_command_that_installs_it(
    name: str, modules: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UsageError) as missing:
        wanted_formats(["safetensors", name], "f32")
    assert str(missing.value) == f'format={name} needs {" and ".join(modules)} - pip install "microgpt[export]"'


@pytest.mark.parametrize("names,dtype", [([], "f32"), (["huggingface"], "q8_0"), (["gguf", "onnx"], "f16")])
def test_a_number_format_that_a_format_has_not_is_refused(names: list[str], dtype: str) -> None:
    with pytest.raises(UsageError) as wrong:
        wanted_formats(names, dtype)
    assert (f"dtype={dtype}" if names else "format=[]") in wrong.value.what


def test_how_to_draw_goes_along(make: Make, tmp_path: Path) -> None:
    folder = make("bpe")
    export(folder, tmp_path / "hf", "huggingface")
    export(folder, tmp_path / "gguf", "gguf")
    said = json.loads((tmp_path / "hf" / "generation_config.json").read_text())
    assert (said["temperature"], said["top_k"], said["max_length"]) == (0.3, 7, folder.config.block_size)
    assert "PARAMETER temperature 0.3" in (tmp_path / "gguf" / "Modelfile").read_text()


def test_a_context_of_a_few_tokens_is_proved_too(make: Make, tmp_path: Path) -> None:
    folder = make("names", block_size=8)
    for name in FORMATS:
        assert export(folder, tmp_path / name, name)["prompts"] == 64


def test_gelu_in_llama_cpp_is_allowed_for_and_the_card_says_how_far_it_is(make: Make, tmp_path: Path) -> None:
    proof = export(make("bpe", **GPT2), tmp_path / "out", "gguf")
    assert 2e-4 < proof["max_difference"] < 0.01 < proof["tolerance"]
