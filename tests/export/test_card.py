"""What the model card says of data, of imported models and of how a model is loaded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from microgpt.data.sources import CORPORA
from microgpt.export.card import UNKNOWN, model_card
from microgpt.export.formats import FORMATS

from .conftest import Make


def card_of(make: Make, kind: str = "bpe", form: str = "safetensors", **meta: Any) -> str:
    opened = make(kind)
    return model_card(replace(opened, meta={**opened.meta, **meta}), None, None, FORMATS[form], [])


@pytest.mark.parametrize("name", [name for name, corpus in CORPORA.items() if corpus.sha256])
def test_the_licence_is_that_of_the_files_content_whatever_it_is_called(name: str, make: Make) -> None:
    corpus = CORPORA[name]
    sources = [
        {"path": "/home/me/renamed.txt", "format": "text", "sha256": corpus.sha256, "bytes": 7},
        {"path": f"/home/me/{corpus.file}", "format": "text", "sha256": "0" * 64, "bytes": 7},
        {"path": "owner/name", "format": "hub", "sha256": "1" * 64, "bytes": 0},
    ]
    lines = card_of(make, data={"sources": sources}).splitlines()
    assert f"- `renamed.txt`, 7 bytes, sha256 `{corpus.sha256}`; licence: {corpus.licence}" in lines
    assert f"- `{corpus.file}`, 7 bytes, sha256 `{'0' * 64}`; licence: {UNKNOWN}" in lines
    assert "- `owner/name` of the Hugging Face hub; licence: see its page there" in lines


def test_an_imported_model_says_where_it_is_from_and_claims_no_data(make: Make) -> None:
    card = card_of(make, imported={"name": "theirs", "kind": "llama"})
    assert "Imported into microgpt from `theirs` (llama)." in card
    assert "not known here" in card
    assert "trained with microgpt" not in card


def test_every_format_says_how_it_is_loaded(make: Make) -> None:
    loaded = {
        "safetensors": ["microgpt serve --model-dir THIS_FOLDER", "microgpt.load('THIS_FOLDER').generate()"],
        "huggingface": ["pipeline('text-generation', 'THIS_FOLDER')", "microgpt import THIS_FOLDER my-model"],
        "gguf": ["llama-server -m THIS_FOLDER/model.gguf", "ollama create my-model -f THIS_FOLDER/Modelfile"],
        "onnx": ["InferenceSession('THIS_FOLDER/model.onnx')"],
    }
    assert loaded.keys() == FORMATS.keys()
    for form, commands in loaded.items():
        for kind in ("bpe", "chat"):
            card = card_of(make, kind, form)
            assert all(command in card for command in commands), form
            assert ("hold a conversation" in card) == (kind == "bpe")


def test_the_card_of_hugging_face_begins_with_its_front_matter(make: Make) -> None:
    assert card_of(make, form="huggingface").startswith("---\nlibrary_name: transformers\n")
    assert card_of(make).startswith("# made\n")


def test_the_python_of_the_card_runs(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opened = make("bpe")
    card = model_card(opened, None, None, FORMATS["safetensors"], [])
    (line,) = [line for line in card.splitlines() if line.startswith("python -c ")]
    code = line.removeprefix('python -c "').removesuffix('"').replace("THIS_FOLDER", str(opened.path))
    exec(compile(code, "the card", "exec"), {})
    assert capsys.readouterr().out.endswith("\n")
