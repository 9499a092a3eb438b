"""The Python of docs/export.md writes with an exported graph what the model itself writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import model_files, open_model
from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.export.runtimes import Own
from microgpt.export.write import export_model
from microgpt.model.gpt import GPT
from microgpt.tokenizer.char import CharTokenizer

PAGE = Path(__file__).parents[2] / "docs" / "export.md"


def test_the_loop_over_the_graph_writes_what_the_model_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxruntime")
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz")
    model = GPT(ModelConfig(init="normal", block_size=32), tokenizer.vocab_size)
    model.init_weights(5)
    write_folder(tmp_path / "model", model_files(model, tokenizer, {}), 0)
    folder = open_model(tmp_path / "model")
    place = tmp_path / "outputs" / "latest" / "export" / "onnx-f32"
    export_model(folder, place, "onnx", "f32", "# a card\n", SamplingConfig())
    (code,) = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "docs/export.md", "exec"), {})
    start = [tokenizer.bos, *tokenizer.encode("an")]
    wanted = tokenizer.decode(start + Own(folder).greedy(start, 7, []))
    assert capsys.readouterr().out == wanted + "\n"
