"""The project's own format: a model directory in the wanted number format."""

from __future__ import annotations

from pathlib import Path

from microgpt.checkpoints.model import ModelFolder, load_weights, model_files
from microgpt.config.schema import SamplingConfig

KEPT = ("name", "data", "step", "tokens", "val", "imported")  # of meta.json; the rest belongs to the checkpoint


def write_safetensors(folder: ModelFolder, target: Path, dtype: str, sampling: SamplingConfig) -> None:
    """Write a model directory into a folder.

    Args:
        folder: an opened model.
        target: a folder that exists.
        dtype: `f32`, `bf16` or `f16`.
        sampling: has no place in this format.
    """
    keep = {key: value for key, value in folder.meta.items() if key in KEPT}
    if "sources" in keep.get("data", {}):  # where they lay is of no use to others, and is theirs to know least
        named = [
            {**s, "path": s["path"] if s.get("format") == "hub" else Path(s["path"]).name}
            for s in keep["data"]["sources"]
        ]
        keep["data"] = {**keep["data"], "sources": named}
    for name, content in model_files(load_weights(folder), folder.tokenizer, keep, dtype).items():
        (target / name).write_bytes(content)
