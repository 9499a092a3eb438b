"""Models of other programs as model directories: Hugging Face folders of four families, and prior art's own.

Nothing but safetensors and JSON is read. What this project does not compute exactly so is refused by the value that
says it: a model that was imported gives the logits of its source.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from microgpt import files
from microgpt.checkpoints.folder import META, TOKENIZER, WEIGHTS, write_folder
from microgpt.checkpoints.model import ModelFolder, model_files, open_model
from microgpt.checkpoints.tensors import check_shapes, read_arrays, read_header
from microgpt.config.schema import ModelConfig
from microgpt.errors import ModelError, UsageError
from microgpt.export.families import Arrays
from microgpt.export.foreign_shapes import drop_tied_head, hugging_face_shape, own_names, plain_shape
from microgpt.export.foreign_tokenizer import adapted
from microgpt.model.shapes import parameter_shapes

CONFIG, ONE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
MAX_JSON = 16 << 20
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5", ".npz")
MEND = "save it with transformers as safetensors: model.save_pretrained(folder)"
DTYPES = {"F32": "f32", "BF16": "bf16", "F16": "f16"}


def import_model(source: Path, target: Path) -> ModelFolder:
    """Write the model directory of another program's model.

    Args:
        source: a Hugging Face folder (Llama, Qwen3, Arcee or GPT-2), or a folder with weights.safetensors, meta.json
            and tokenizer.json as prior art writes it.
        target: the folder to write; it must not be there, or be empty.

    Returns:
        What was written, opened.

    Raises:
        ModelError: it is none of these, is damaged, or has something that this project cannot express.
        UsageError: the target holds something.
        DiskError: it could not be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{target} holds something", "give a folder that is not there yet")
    kind = kind_of(source)
    name = CONFIG if kind == "huggingface" else META
    content = read_object(source / name)
    config = hugging_face_shape(content, name) if kind == "huggingface" else plain_shape(content, name)
    paths = [source / WEIGHTS] if kind == "plain" else weight_files(source)
    tensors, dtype = read_tensors(paths)
    if kind == "huggingface":
        tensors = own_names(tensors, config, content)
    drop_tied_head(config, tensors)
    vocab_size = len(tensors["wte"]) if "wte" in tensors else 0
    check(paths[0], config, tensors, vocab_size)
    if content.get("vocab_size") not in (None, vocab_size):
        raise ModelError(f"{name}: vocab_size={content['vocab_size']}, but the weights have {vocab_size}", MEND)
    tokenizer, notes = adapted(source, content, vocab_size)
    import torch

    from microgpt.model.gpt import GPT

    model = GPT(config, vocab_size)
    model.load_state_dict({key: torch.from_numpy(np.ascontiguousarray(a)) for key, a in tensors.items()})
    origin = {
        "kind": str(content.get("model_type", "prior art")),
        "name": source.resolve().name,
        "files": {p.name: files.sha256_file(p) for p in (source / name, source / TOKENIZER, *paths)},
        "notes": notes,
    }
    meta = {"name": target.resolve().name, "imported": origin}
    write_folder(target, model_files(model, tokenizer, meta, dtype), 0)
    return open_model(target)


def kind_of(source: Path) -> str:
    """`huggingface` or `plain`.

    Raises:
        ModelError: it is neither, saying what it is instead.
    """
    if source.is_file():
        raise ModelError(f"{source} is a file", "give the folder of a model: only safetensors and JSON are read")
    if not source.is_dir():
        raise ModelError(f"{source} does not exist", "give the folder of a model")
    if (source / META).exists() and (source / WEIGHTS).exists():
        if read_object(source / META).get("format") == "microgpt-model":
            raise ModelError(f"{source} is a model of this project", "use it as it is")
        return "plain"
    if (source / ONE).exists() or (source / INDEX).exists():
        if not (source / CONFIG).exists():
            raise ModelError(f"{source} has no {CONFIG}", "give the whole folder of the model")
        return "huggingface"
    pickles = sorted(p.name for p in source.iterdir() if p.suffix in PICKLES)
    if pickles:
        raise ModelError(f"{source} holds {pickles[0]}, which is never opened: only safetensors and JSON are", MEND)
    raise ModelError(f"{source} holds no {ONE}", "give a Hugging Face folder, or one with weights.safetensors")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold an object.

    Raises:
        ModelError: it does not, or is too large.
    """
    try:
        if path.stat().st_size > MAX_JSON:
            raise ModelError(f"{path} is larger than {MAX_JSON:,} bytes", "take it from its source again")
        content = files.read_json(path)
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}", "take it from its source again") from None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({str(error)[:80]})", "take it from its source again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} holds no JSON object", "take it from its source again")
    return content


def weight_files(source: Path) -> list[Path]:
    """The safetensors files of a Hugging Face folder, in one piece or in several by their index.

    Raises:
        ModelError: the index names a file that is none of this folder.
    """
    if (source / ONE).exists():
        return [source / ONE]
    listed = read_object(source / INDEX).get("weight_map")
    names = sorted({str(name) for name in listed.values()}) if isinstance(listed, dict) else []
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors") or not (source / name).is_file():
            raise ModelError(f"{source / INDEX} names {name[:80]!r}, which is no file here", "copy the whole folder")
    if not names:
        raise ModelError(f"{source / INDEX} names no file", "copy the whole folder")
    return [source / name for name in names]


def read_tensors(paths: list[Path]) -> tuple[Arrays, str]:
    """All tensors of files in float32, and the number format that holds them without loss.

    Raises:
        ModelError: a file is damaged, a tensor stands in two, or holds NaN.
    """
    found: Arrays = {}
    kinds: set[str] = set()
    for path in paths:
        header, start = read_header(path)
        if twice := sorted(set(header) & set(found)):
            raise ModelError(f"{path} holds {twice[0]} once more", "take the files from their source again")
        found |= {n: a.astype(np.float32, copy=False) for n, a in read_arrays(path, header, start).items()}
        kinds |= {dtype for dtype, shape, _, _ in header.values() if len(shape) == 2}
    return found, DTYPES.get(kinds.pop(), "f32") if len(kinds) == 1 else "f32"


def check(path: Path, config: ModelConfig, tensors: Arrays, vocab_size: int) -> None:
    """Hold tensors under our names against the model's shape.

    Raises:
        ModelError: one is missing, foreign, or of another shape.
    """
    last = f"layer{config.n_layer - 1}.attn_wq"
    if last not in tensors:  # before any shape is worked out for layers that are not there
        raise ModelError(f"{path} does not fit its config: it misses {last}", "copy the whole folder")
    header = {name: ("F32", a.shape, 0, 0) for name, a in tensors.items()}
    check_shapes(path, header, parameter_shapes(config, vocab_size))
