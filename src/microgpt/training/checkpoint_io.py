"""Lightning's checkpoints in this project's own folders: safetensors and JSON, atomic, checksummed, no pickle."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from microgpt import files
from microgpt.checkpoints.folder import OPTIMIZER, STATE, verify, write_folder
from microgpt.checkpoints.model import load_weights, model_files, open_model
from microgpt.checkpoints.tensors import read_arrays, read_header
from microgpt.errors import ModelError
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import Tokenizer
from microgpt.training.lightning import CheckpointIO, pl
from microgpt.training.schedule import from_json as schedule_from_json

STATE_VERSION = 1


def to_json(value: Any) -> Any:
    """A state as JSON: tensors of one number and non-finite numbers are marked."""
    if isinstance(value, Tensor):
        return {"__scalar__": str(value.dtype).removeprefix("torch."), "value": to_json(value.item())}
    if isinstance(value, float) and not math.isfinite(value):
        return {"__float__": repr(value)}
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    return value


def from_json(value: Any) -> Any:
    """The state that `to_json` wrote; tuples come back as lists."""
    if isinstance(value, list):
        return [from_json(v) for v in value]
    if isinstance(value, dict):
        if "__float__" in value:
            return float(value["__float__"])
        if "__scalar__" in value:
            return torch.tensor(from_json(value["value"]), dtype=getattr(torch, value["__scalar__"]))
        return {k: from_json(v) for k, v in value.items()}
    return value


class FolderCheckpointIO(CheckpointIO):
    """Reads and writes checkpoint folders.

    Args:
        model: the network whose weights are in Lightning's state dict under `model.`.
        tokenizer: goes into every checkpoint.
        meta: facts for meta.json and training_state.json.
        filled: the network is a copy, into which the weights that Lightning has gathered are put before each save.
    """

    def __init__(self, model: GPT, tokenizer: Tokenizer, meta: dict[str, Any], filled: bool = False) -> None:
        self.model, self.tokenizer, self.meta, self.filled = model, tokenizer, meta, filled

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        progress = checkpoint["progress"]
        if self.filled:
            self._put({n.removeprefix("model."): t for n, t in checkpoint["state_dict"].items()})
        (state,) = checkpoint["optimizer_states"]
        tensors: dict[str, Tensor] = {f"rng.{k}": v for k, v in checkpoint["rng"].items()}
        for index, entry in state["state"].items():
            tensors.update({f"optimizer.{index}.{name}": t for name, t in entry.items()})
        average: dict[str, Tensor] | None = checkpoint.get("average")
        trained = {n: p.detach().clone() for n, p in self.model.named_parameters()} if average else {}
        # the weights to use are the averaged ones; those in training go to the optimizer's file
        tensors.update({f"trained.{name}": tensor for name, tensor in trained.items()})
        self._put(average or {})
        val = progress["val"]
        facts = {
            **self.meta["model"],
            "step": progress["step"],
            "tokens": progress["tokens"],
            "val": to_json(val),
        }
        contents = model_files(self.model, self.tokenizer, facts)
        self._put(trained)
        training_state = {
            "version": STATE_VERSION,
            "progress": to_json(progress),
            "callbacks": to_json(checkpoint.get("callbacks", {})),
            "param_groups": to_json(state["param_groups"]),
            **self.meta["state"],
        }
        contents[OPTIMIZER] = save({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()})
        contents[STATE] = (json.dumps(training_state, indent=1, allow_nan=False) + "\n").encode()
        write_folder(Path(path), contents, int(progress["step"]))

    @torch.no_grad()
    def _put(self, tensors: dict[str, Tensor]) -> None:
        for name, tensor in tensors.items():
            self.model.get_parameter(name).copy_(tensor)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: Any = None) -> dict[str, Any]:
        folder = Path(path)
        verify(folder)
        state = read_state(folder)
        header, start = read_header(folder / OPTIMIZER)
        tensors = {n: torch.from_numpy(a) for n, a in read_arrays(folder / OPTIMIZER, header, start).items()}
        model = load_weights(open_model(folder))
        weights = {name: p.detach() for name, p in model.named_parameters()}
        try:
            return _for_lightning(state, tensors, weights)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"{folder} cannot be resumed from: {STATE} or {OPTIMIZER} is damaged ({type(error).__name__})",
                "take another checkpoint",
            ) from None

    def remove_checkpoint(self, path: Any) -> None:
        raise NotImplementedError("checkpoints are removed by checkpoints.folder.prune")


def _for_lightning(state: dict[str, Any], tensors: dict[str, Tensor], weights: dict[str, Tensor]) -> dict[str, Any]:
    """What Lightning restores, from the parts of a checkpoint."""
    loaded: dict[str, Any] = {
        "pytorch-lightning_version": pl.__version__,
        "epoch": 0,
        "global_step": state["progress"]["step"],
        "progress": state["progress"],
        "callbacks": state["callbacks"],
        "lr_schedulers": [],
        "rng": {n.removeprefix("rng."): t for n, t in tensors.items() if n.startswith("rng.")},
    }
    trained = {n.removeprefix("trained."): t for n, t in tensors.items() if n.startswith("trained.")}
    if trained:
        loaded["average"], weights = weights, trained
    loaded["state_dict"] = {f"model.{name}": t for name, t in weights.items()}
    entries: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimizer."):
            _, index, leaf = name.split(".", 2)
            entries.setdefault(int(index), {})[leaf] = tensor
    loaded["optimizer_states"] = [{"state": entries, "param_groups": state["param_groups"]}]
    return loaded


def _check(state: dict[str, Any]) -> None:
    """Hold the parts of a training state against what they must be; whatever this raises means that they are not."""
    progress = state["progress"]
    counts = [progress[name] for name in ("step", "tokens", "bad_steps", "validated_at")]
    numbers = [progress["elapsed_s"], progress["best"]["loss"], progress["best"]["bpb"], *progress["val"].values()]
    counts += [progress["best"]["step"]]
    stages = schedule_from_json(progress["schedule"])
    stages.factor(progress["step"])
    for callback in state["callbacks"].values():
        counts += [callback[name] for name in ("wait_count", "stopped_epoch", "patience") if name in callback]
        numbers += [float(callback[name]) for name in ("best_score", "smooth_loss") if name in callback]
    wrong = [v for v in counts if type(v) is not int] + [v for v in numbers if type(v) not in (int, float)]
    if wrong or progress["step"] < 0:
        raise TypeError(f"{wrong or progress['step']} is no number that it could hold")


def read_state(folder: Path) -> dict[str, Any]:
    """training_state.json of a checkpoint.

    Raises:
        ModelError: it is missing or damaged, or of a newer release.
    """
    try:
        raw = files.read_json(folder / STATE)
        if raw["version"] > STATE_VERSION:
            raise ModelError(f"{folder} was written by a newer microgpt", "update microgpt")
        state = from_json(raw)
        _check(state)
        return state
    except (ArithmeticError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder} cannot be resumed from: {STATE} is missing or damaged ({type(error).__name__})",
            "give a checkpoint of a run, not an exported model",
        ) from None
