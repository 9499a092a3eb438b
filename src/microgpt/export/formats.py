"""The formats of an export by name: what each needs, holds, writes and is proved with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from microgpt.checkpoints.model import ModelFolder, open_model
from microgpt.config.schema import SamplingConfig
from microgpt.errors import UsageError
from microgpt.export import gguf, huggingface, onnx, safetensors
from microgpt.export.runtimes import LlamaCpp, OnnxRuntime, Own, Runtime, Transformers, installed

SESSION = (
    'python -c "from onnxruntime import InferenceSession; '
    "print([i.name for i in InferenceSession('{target}/model.onnx').get_inputs()])\""
)
PIPELINE = "python -c \"from transformers import pipeline; print(pipeline('text-generation', '{target}')"
#: what rounding may do to a sharply trained model; a permuted head or a wrong norm is off by several nats
ROUNDED = {"bf16": 0.5, "f16": 0.06}
EXTRA = 'pip install "microgpt[export]"'


@dataclass(frozen=True)
class Format:
    """How a model is written for one kind of reader.

    Attributes:
        tolerance: by number format, how far a log-probability of the reader may be off, in nats.
        needs: modules that must be installed.
        check: raises ModelError for a model that the format cannot hold.
        write: writes the files into a folder, in a number format.
        open: loads them into what they are for; None where that is not installed and the files were read back
            number by number instead.
        use, chat: the command that the reader types next, with {target} for the folder.
        more: further commands that load it.
        card_head: lines that the model card must begin with.
        gelu: the least tolerance for a model with GELU, where the reader computes that another way.
    """

    tolerance: Mapping[str, float]
    needs: tuple[str, ...]
    check: Callable[[ModelFolder], None]
    write: Callable[[ModelFolder, Path, str, SamplingConfig], None]
    open: Callable[[ModelFolder, Path, str], Runtime | None]
    use: str
    chat: str
    more: tuple[str, ...] = ()
    card_head: tuple[str, ...] = ()
    gelu: float = 0.0

    def allowed(self, folder: ModelFolder, dtype: str) -> float:
        """How far a log-probability of a model may be off in a number format, in nats."""
        return max(self.tolerance[dtype], self.gelu if folder.config.mlp.startswith("gelu") else 0.0)


def _check_any(folder: ModelFolder) -> None:
    """The project's own format holds all that the project trains."""


def _open_gguf(folder: ModelFolder, target: Path, dtype: str) -> Runtime | None:
    gguf.read_back(folder, target / gguf.FILE, dtype)
    return LlamaCpp(target / gguf.FILE, folder) if installed("xllamacpp") else None


FORMATS = {
    "safetensors": Format(
        tolerance={"f32": 1e-6, **ROUNDED},
        needs=(),
        check=_check_any,
        write=safetensors.write_safetensors,
        open=lambda folder, target, dtype: Own(open_model(target)),
        use="microgpt generate --model-dir {target}",
        chat="microgpt chat --model-dir {target}",
        more=(
            "microgpt serve --model-dir {target}",
            "python -c \"import microgpt; print(microgpt.load('{target}').generate()[0])\"",
            "python -m microgpt.export run={target} 'format=[huggingface,gguf,onnx]' output=exports",
        ),
    ),
    "huggingface": Format(
        tolerance={"f32": 5e-4, **ROUNDED},
        needs=("transformers",),
        check=huggingface.check_huggingface,
        write=huggingface.write_huggingface,
        open=lambda folder, target, dtype: Transformers(target),
        use=PIPELINE + "(''))\"",
        chat=PIPELINE + "([{{'role': 'user', 'content': 'Hello'}}]))\"",
        more=("microgpt import {target} my-model",),
        card_head=("---", "library_name: transformers", "pipeline_tag: text-generation", "---", ""),
    ),
    "gguf": Format(
        tolerance={"f32": 5e-4, **ROUNDED, "q8_0": 1.0},
        needs=("gguf",),
        check=gguf.check_gguf,
        write=gguf.write_gguf_folder,
        open=_open_gguf,
        use="llama-completion -m {target}/model.gguf",
        chat="llama-cli -m {target}/model.gguf",
        more=("llama-server -m {target}/model.gguf", "ollama create my-model -f {target}/Modelfile"),
        gelu=ROUNDED["f16"],  # by its tanh form, from a table of f16
    ),
    "onnx": Format(
        tolerance={"f32": 5e-4},
        needs=("onnx", "onnxruntime"),
        check=onnx.check_onnx,
        write=onnx.write_onnx,
        open=lambda folder, target, dtype: OnnxRuntime(target, onnx.FILE),
        use=SESSION,
        chat=SESSION,
    ),
}


def wanted_formats(names: list[str], dtype: str) -> list[str]:
    """The formats that a user named, each once.

    Raises:
        UsageError: none was named, one does not know the number format, or one's libraries are not installed.
    """
    if not names:
        raise UsageError("format=[]: no format is named", f"use {', '.join(FORMATS)}")
    for name in names:
        known = list(FORMATS[name].tolerance)
        if dtype not in known:
            raise UsageError(f"format={name} has no dtype={dtype}", f"use dtype={', '.join(known)}")
        missing = [module for module in FORMATS[name].needs if not installed(module)]
        if missing:
            raise UsageError(f"format={name} needs {' and '.join(missing)}", EXTRA)
    return list(dict.fromkeys(names))
