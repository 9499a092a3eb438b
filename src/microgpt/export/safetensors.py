"""The project's own format: a model directory in the wanted number format, proved to give the same logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from microgpt.checkpoints.folder import write_folder
from microgpt.checkpoints.model import ModelFolder, load_weights, model_files, open_model
from microgpt.errors import ModelError

#: largest difference of a log-probability that rounding the weights may cause
TOLERANCE = {"f32": 1e-6, "bf16": 0.25, "f16": 0.03}
PROMPTS, LENGTH = 16, 32


def export_safetensors(source: ModelFolder, target: Path, dtype: str, card: str) -> dict[str, Any]:
    """Write a model directory and prove it.

    Args:
        source: an opened model.
        target: the folder to write; it must be replaceable.
        dtype: `f32`, `bf16` or `f16`.
        card: text of the model card; the proof is added to it.

    Returns:
        The proof: the largest difference of log-probabilities, and what was compared.

    Raises:
        ModelError: the exported model does not give the same logits; nothing is left behind.
    """
    model = load_weights(source)
    keep = {k: v for k, v in source.meta.items() if k in ("name", "data", "step", "tokens", "val")}
    contents = model_files(model, source.tokenizer, keep, dtype)
    step = int(source.meta.get("step", 0))
    trial = target.with_name(f".{target.name}.trial")
    try:
        write_folder(trial, contents, step)
        proof = prove(model, load_weights(open_model(trial)), dtype)
    finally:
        _remove(trial)
    contents["README.md"] = (card + proof_text(proof)).encode("utf-8")
    write_folder(target, contents, step)
    return proof


def prove(model: Any, exported: Any, dtype: str) -> dict[str, Any]:
    """Compare log-probabilities on random prompts.

    Raises:
        ModelError: they differ by more than the number format explains.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(LENGTH, model.config.block_size)
    prompts = torch.randint(0, model.vocab_size, (PROMPTS, length), generator=generator)
    with torch.inference_mode():
        before, after = (torch.log_softmax(m(prompts), dim=-1) for m in (model, exported))
    worst = float((before - after).abs().max())
    same = float((before.argmax(-1) == after.argmax(-1)).float().mean())
    if worst > TOLERANCE[dtype]:
        raise ModelError(
            f"the exported model differs: log-probabilities by up to {worst:.2g}, {TOLERANCE[dtype]:g} is allowed",
            "export with dtype=f32",
        )
    return {"prompts": PROMPTS, "tokens": length, "max_difference": worst, "same_choice": same, "dtype": dtype}


def proof_text(proof: dict[str, Any]) -> str:
    """The proof for the model card."""
    return (
        f"\n## Proof\n\nThe exported files were loaded again and compared with the checkpoint on {proof['prompts']} "
        f"prompts of {proof['tokens']} tokens: log-probabilities differ by at most {proof['max_difference']:.2g}; "
        f"the likeliest token is the same in {proof['same_choice']:.1%} of places.\n"
    )


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
