"""onnxruntime runs an exported graph and computes the same, with and without a cache, in batches too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from microgpt.checkpoints.model import load_weights
from microgpt.config.schema import SamplingConfig
from microgpt.errors import ModelError
from microgpt.export.onnx import FILE, check_onnx, write_onnx
from microgpt.export.proof import prove
from microgpt.export.runtimes import OnnxRuntime, Own

from .conftest import SHAPES, Make

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
MICRO = {"norm": "rmsnorm_nogain", "embed_norm": True, "final_norm": False, "position": "learned", "qk_norm": False}
MORE: dict[str, dict[str, Any]] = {
    "micro": {**MICRO, "mlp": "relu", "n_layer": 1, "n_embd": 16, "block_size": 16},
    "layernorm with rotary positions": {"norm": "layernorm", "bias": True},
    "what no family has": {"position": "learned", "embed_norm": True, "n_kv_head": 2, "tied": True},
}


@pytest.mark.parametrize("name", [*SHAPES, *MORE])
def test_every_model_gives_the_same_scores_and_greedy_tokens(name: str, make: Make, tmp_path: Path) -> None:
    folder = make("bpe", **{**SHAPES, **MORE}[name])
    write_onnx(folder, tmp_path, "f32", SamplingConfig())
    found = prove(folder, Own(folder), OnnxRuntime(tmp_path, FILE), 1e-4)
    assert found["max_difference"] < 1e-5
    assert found["greedy_same"] == found["greedy_tokens"] == 100


@pytest.mark.parametrize("kind", ["chat", "grown", "bytes", "char", "names"])
def test_every_tokenizer_gives_the_same_ids(kind: str, make: Make, tmp_path: Path) -> None:
    folder = make(kind)
    write_onnx(folder, tmp_path, "f32", SamplingConfig())
    prove(folder, Own(folder), OnnxRuntime(tmp_path, FILE), 1e-4)
    assert (tmp_path / "chat_template.jinja").exists() == folder.tokenizer.is_chat


@pytest.mark.parametrize("name", ["qwen3", "arcee", "gpt2"])
def test_rows_are_read_together_and_in_pieces(name: str, make: Make, tmp_path: Path) -> None:
    import onnxruntime

    folder = make("bpe", **SHAPES[name])
    write_onnx(folder, tmp_path, "f32", SamplingConfig())
    session: Any = onnxruntime.InferenceSession(str(tmp_path / FILE), providers=["CPUExecutionProvider"])
    tokens = torch.randint(0, folder.vocab_size, (3, 40), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        wanted = load_weights(folder)(tokens).numpy()
    heads = folder.config.n_kv_head or folder.config.n_head
    names = [i.name for i in session.get_inputs()[1:]]
    past = dict.fromkeys(names, np.zeros((3, heads, 0, 16), np.float32))
    for start, end in ((0, 17), (17, 18), (18, 40)):
        logits, *present = session.run(None, {"input_ids": tokens[:, start:end].numpy(), **past})
        assert np.abs(logits - wanted[:, start:end]).max() < 1e-4
        past = dict(zip(names, present))
    assert past[names[0]].shape == (3, heads, 40, 16)


def test_a_model_of_more_than_a_file_holds_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microgpt.export.onnx.LIMIT", 10_000)
    with pytest.raises(ModelError, match="2 GB"):
        check_onnx(make("bpe"))
