"""An export loads again, proves itself in its card, and never writes over anything else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from microgpt.checkpoints.folder import find, verify
from microgpt.checkpoints.model import open_model
from microgpt.export.card import UNKNOWN
from microgpt.export.formats import FORMATS
from microgpt.export.proof import prove
from microgpt.export.runtimes import Own
from microgpt.files import sha256_file, shipped

pytestmark = pytest.mark.slow


def shares(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize("dtype", ["f32", "bf16", "f16"])
def test_an_export_gives_the_logits_of_the_checkpoint(warm_anywhere, trained: Path, dtype: str) -> None:
    words = ["run=outputs/two", f"dtype={dtype}", f"output=exports/{dtype}", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained)
    folder = trained / "exports" / dtype
    verify(folder)
    source = find(trained / "outputs" / "two" / "checkpoints", "best")
    opened = open_model(folder)
    assert opened.meta["dtype"] == dtype
    tolerance = FORMATS["safetensors"].tolerance[dtype]
    found = prove(open_model(source), Own(open_model(source)), Own(opened), tolerance)
    assert found["max_difference"] <= tolerance
    if dtype == "f32":
        assert found["max_difference"] == 0
    sizes = [(p / "weights.safetensors").stat().st_size for p in (source, folder)]
    assert sizes[1] == sizes[0] if dtype == "f32" else sizes[1] < 0.7 * sizes[0]
    assert opened.tokenizer.encode("anna") == open_model(source).tokenizer.encode("anna")
    assert f"--model-dir exports/{dtype}" in done.stderr


def test_the_card_says_data_config_curves_scores_samples_use_limits_and_the_proof(
    warm_anywhere, trained: Path
) -> None:
    warm_anywhere("export", "run=outputs/two", "output=exports/card", "tracking=off", cwd=trained)
    folder = trained / "exports" / "card"
    card = (folder / "README.md").read_text()
    for section in ("Data", "Scores", "Curves", "Samples", "Config", "Use", "Limits", "Proof"):
        assert f"\n## {section}\n" in card
    digest = sha256_file(shipped("corpora") / "names.txt")
    assert f"`names.txt`, 50,860 bytes, sha256 `{digest}`; licence: MIT, written by this project" in card
    assert "trainer.max_steps=160" in card
    assert "val/loss" in card
    assert "![loss by step](loss.png)" in card
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    (*_, last) = (trained / "outputs" / "two" / "samples.jsonl").read_text().splitlines()
    assert all(f"\n{text}\n" in card for text in json.loads(last)["samples"])
    for command in ("generate --model-dir", "serve --model-dir", "python -c", "format=[huggingface,gguf,onnx]"):
        assert command in card
    assert "log-probabilities differ by at most 0 nats" in card
    for file in ("README.md", "meta.json", "proof.json"):
        text = (folder / file).read_text()
        assert str(trained) not in text, "an export is given to others: it holds no path of this machine"
        assert str(shipped("corpora")) not in text
    assert "tracking." not in card


def test_every_source_of_a_mixture_has_its_own_licence(warm_anywhere, small: list[str], trained: Path) -> None:
    (trained / "own.txt").write_text("\n".join(f"a line of my own, number {i}" for i in range(200)) + "\n")
    mixture = f"data.mixture=[names:0.5,{trained}/own.txt:0.5]"
    words = [*small, mixture, "trainer.max_steps=4", "hydra.run.dir=outputs/mixed", "tracking=off"]
    warm_anywhere("train", *words, cwd=trained)
    warm_anywhere("export", "run=outputs/mixed", "output=exports/mixed", "tracking=off", cwd=trained)
    card = (trained / "exports" / "mixed" / "README.md").read_text()
    found = {line.split("`")[1]: line.partition("licence: ")[2] for line in card.splitlines() if "licence: " in line}
    assert found == {"names.txt": "MIT, written by this project", "own.txt": UNKNOWN}
    assert "mixed by weight: names:0.5, own.txt:0.5" in card
    assert str(trained) not in card


def test_scores_and_samples_of_another_checkpoint_are_left_out(warm_anywhere, trained: Path) -> None:
    words = ["run=[outputs/one]", "tracking=off", "sampling.num_samples=2", "sampling.max_new_tokens=5"]
    warm_anywhere("evaluate", *words, cwd=trained)
    path = trained / "outputs" / "one" / "evaluation.json"
    found = json.loads(path.read_text())
    export = ["run=outputs/one", "output=exports/judged", "tracking=off"]
    warm_anywhere("export", *export, cwd=trained)
    card = trained / "exports" / "judged" / "README.md"
    assert f"whole validation set: loss {found['loss']:.4f}" in card.read_text()
    found["checkpoint"], found["samples"] = "outputs/one/checkpoints/step-000001", ["```", "another"]
    path.write_text(json.dumps(found))
    warm_anywhere("export", *export, cwd=trained)
    assert "whole validation set" not in card.read_text()
    assert "another" not in card.read_text()
    found["checkpoint"] = str(find(trained / "outputs" / "one" / "checkpoints", "best"))
    path.write_text(json.dumps(found))
    warm_anywhere("export", *export, cwd=trained)
    assert "\n````\n```\nanother\n````\n" in card.read_text(), "a sample cannot end its fence"


def test_an_export_takes_no_optimizer_nor_training_state_along(warm_anywhere, trained: Path) -> None:
    warm_anywhere("export", "run=outputs/one", "tracking=off", cwd=trained)
    names = set(os.listdir(trained / "outputs" / "one" / "export" / "safetensors-f32"))
    assert not {"optimizer.safetensors", "training_state.json"} & names
    assert {"weights.safetensors", "meta.json", "tokenizer.json", "README.md", "MANIFEST.json"} <= names


def test_an_export_is_written_over_by_the_next(warm_anywhere, trained: Path) -> None:
    for dtype in ("f32", "f16"):
        words = [f"dtype={dtype}", "output=exports/again", "run=outputs/one", "tracking=off"]
        warm_anywhere("export", *words, cwd=trained)
    assert open_model(trained / "exports" / "again").meta["dtype"] == "f16"


@pytest.mark.parametrize("target", ["photos", "photos/one.jpg"])
def test_a_folder_that_holds_something_else_is_refused_and_left_alone(
    warm_anywhere, trained: Path, tmp_path: Path, target: str
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "one.jpg").write_bytes(b"mine")
    words = ["run=outputs/one", f"output={tmp_path / target}", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained, code=2)
    (line,) = done.stderr.strip().splitlines()
    assert "output=" in line
    assert shares(tmp_path) == {"photos/one.jpg": b"mine"}


def test_a_checkpoint_of_a_run_is_no_place_for_an_export(warm_anywhere, trained: Path) -> None:
    """A checkpoint has a meta.json too: written over, its optimizer would be lost."""
    target = find(trained / "outputs" / "two" / "checkpoints", "latest")
    before = shares(target)
    warm_anywhere("export", "run=outputs/one", f"output={target}", "tracking=off", cwd=trained, code=2)
    assert shares(target) == before


def test_a_failed_export_leaves_nothing(warm_anywhere, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "model"
    shutil.copytree(find(trained / "outputs" / "one" / "checkpoints", "best"), copy)
    content = bytearray((copy / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (copy / "weights.safetensors").write_bytes(content)
    output = tmp_path / "exports" / "out"
    words = [f"run={copy}", f"output={output}", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained, code=4)
    (line,) = done.stderr.strip().splitlines()
    assert "weights.safetensors" in line
    assert not output.parent.exists() or not os.listdir(output.parent)


def test_registering_needs_a_run_that_mlflow_knows(warm_anywhere, trained: Path) -> None:
    words = ["run=outputs/one", "register=true", "output=exports/unknown", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained, code=2)
    assert "register=true" in done.stderr.splitlines()[-1]
    assert not (trained / "exports" / "unknown").exists(), "refused before anything is written"


def test_several_formats_in_one_call_each_with_a_folder_of_its_own(warm_anywhere, trained: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnx")
    words = ["run=outputs/two", "format=[huggingface,onnx,safetensors]", "output=exports/many", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained)
    for name in ("huggingface", "onnx", "safetensors"):
        verify(trained / "exports" / "many" / name)
        assert f"exports/many/{name} (" in done.stderr
    assert sorted(os.listdir(trained / "exports" / "many")) == ["huggingface", "onnx", "safetensors"]
    open_model(trained / "exports" / "many" / "safetensors")


def test_without_output_an_export_goes_into_its_run(warm_anywhere, trained: Path) -> None:
    pytest.importorskip("gguf")
    warm_anywhere("export", "run=outputs/two", "format=gguf", "dtype=q8_0", "tracking=off", cwd=trained)
    folder = trained / "outputs" / "two" / "export" / "gguf-q8_0"
    verify(folder)
    assert {"model.gguf", "Modelfile", "README.md", "proof.json"} <= set(os.listdir(folder))
    assert "llama-completion -m THIS_FOLDER/model.gguf" in (folder / "README.md").read_text()


def test_what_one_format_cannot_hold_is_said_before_any_is_written(
    warm_anywhere, small: list[str], trained: Path
) -> None:
    words = [*small, "model.final_norm=false", "trainer.max_steps=4", "hydra.run.dir=outputs/odd", "tracking=off"]
    warm_anywhere("train", *words, cwd=trained)
    words = ["run=outputs/odd", "format=[safetensors,huggingface]", "output=exports/odd", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained, code=4)
    (line,) = done.stderr.strip().splitlines()
    assert "model.final_norm=false" in line
    assert "format=safetensors" in line
    assert not (trained / "exports" / "odd").exists()
    words[1] = "format=[safetensors,onnx]"
    warm_anywhere("export", *words, cwd=trained)


def test_a_wrong_format_is_told_with_the_nearest(warm_anywhere, trained: Path) -> None:
    for word in ("format=gguff", "format=[onnx,gguff]"):
        done = warm_anywhere("export", "run=outputs/one", word, "tracking=off", cwd=trained, code=2)
        (line,) = done.stderr.strip().splitlines()
        assert "did you mean gguf?" in line
    done = warm_anywhere("export", "run=outputs/one", "format=onnx", "dtype=f16", "tracking=off", cwd=trained, code=2)
    assert "format=onnx has no dtype=f16 - use dtype=f32" in done.stderr


def test_a_model_is_not_replaced_by_its_own_export(warm_anywhere, trained: Path) -> None:
    warm_anywhere("export", "run=outputs/one", "output=exports/own", "tracking=off", cwd=trained)
    before = shares(trained / "exports" / "own")
    words = ["run=exports/own", "output=exports/own", "dtype=f16", "tracking=off"]
    done = warm_anywhere("export", *words, cwd=trained, code=2)
    assert "is the model that is exported" in done.stderr
    assert shares(trained / "exports" / "own") == before
