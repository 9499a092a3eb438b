"""One export: written beside its place, proved, described, and only then given its name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from microgpt import files
from microgpt.checkpoints.folder import write_manifest
from microgpt.checkpoints.model import ModelFolder
from microgpt.config.schema import SamplingConfig
from microgpt.export.formats import FORMATS
from microgpt.export.proof import files_of, proof_text, prove
from microgpt.export.runtimes import Own

CARD, PROOF = "README.md", "proof.json"


def export_model(
    folder: ModelFolder,
    target: Path,
    name: str,
    dtype: str,
    card: str,
    sampling: SamplingConfig,
    beside: Mapping[str, bytes] = MappingProxyType({}),
) -> dict[str, Any]:
    """Write a model in a format and prove that what the format is for computes the same.

    Args:
        folder: an opened model.
        target: the folder to write; it must be replaceable.
        name: of the format.
        dtype: number format of the weights, one of the format's.
        card: text of the model card; the proof is added to it.
        sampling: how the reader should draw, where the format can say so.
        beside: further files by name, such as the pictures of the card.

    Returns:
        The proof: runtime, what was compared, the largest difference, size and sha256 of each file.

    Raises:
        ModelError: the format cannot hold the model, or the export does not compute the same; what stood at the
            target before still stands.
        DiskError: it could not be written; likewise.
    """
    form = FORMATS[name]
    form.check(folder)
    with files.new_folder(target) as trial:
        form.write(folder, trial, dtype, sampling)
        runtime = form.open(folder, trial, dtype)
        if runtime is None:
            proof: dict[str, Any] = {"runtime": "the gguf package, llama.cpp (xllamacpp) is not installed"}
        else:
            proof = prove(folder, Own(folder), runtime, form.allowed(folder, dtype))
        for file, content in beside.items():
            (trial / file).write_bytes(content)
        proof = {"format": name, "dtype": dtype, **proof, "files": files_of(trial)}
        (trial / CARD).write_text(card + proof_text(proof), encoding="utf-8")
        files.write_json(trial / PROOF, proof)
        write_manifest(trial, int(folder.meta.get("step", 0)))
    return proof
