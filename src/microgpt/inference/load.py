"""A model directory made ready to write: `microgpt.load`."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from microgpt.checkpoints.model import ModelFolder, open_model, read_weights
from microgpt.config.build import build
from microgpt.config.schema import SamplingConfig
from microgpt.errors import UsageError
from microgpt.inference.chat import Reply, Turn, reply_to, stream_reply
from microgpt.inference.engine import SLOTS, Backend, Engine
from microgpt.inference.generate import Sample, generate
from microgpt.inference.light import LightBackend
from microgpt.inference.weights import fold
from microgpt.tokenizer.base import Tokenizer

# a smaller model's matrices are multiplied faster by one thread than by two that wait for each other
ONE_THREAD_BYTES = 16 << 20
ROLES = ("system", "user", "assistant")


class Model:
    """A model that can write.

    Args:
        folder: its directory, opened.
        engine: decodes it.

    Attributes:
        path: the directory.
        meta: content of meta.json.
        config: the shape.
        tokenizer: text to ids and back.
        engine: for whoever wants more than `generate` and `chat`.
    """

    def __init__(self, folder: ModelFolder, engine: Engine) -> None:
        self.path, self.meta, self.config = folder.path, folder.meta, folder.config
        self.tokenizer: Tokenizer = folder.tokenizer
        self.engine = engine

    def generate(self, prompt: str = "", num_samples: int = 1, **sampling: Any) -> list[str]:
        """Texts that go on from a prompt, without the prompt.

        Args:
            prompt: empty begins a new document.
            num_samples: how many; the i-th is drawn with seed + i.
            sampling: fields of SamplingConfig, such as temperature=0.7, top_k=40, max_new_tokens=200, seed=42.

        Raises:
            UsageError: a setting is wrong, or the prompt does not fit into the context.
        """
        return [s.text for s in self.samples(prompt, num_samples, **sampling)]

    def samples(self, prompt: str = "", num_samples: int = 1, **sampling: Any) -> Iterator[Sample]:
        """As `generate`, each text as soon as it is there, with its number of tokens and how it ended."""
        return generate(self.engine, self.tokenizer, settings(sampling), prompt, num_samples)

    def chat(self, messages: str | Sequence[dict[str, str]], **sampling: Any) -> Reply:
        """The assistant's reply.

        Args:
            messages: what the user says, or the conversation: [{"role": "user", "content": "..."}, ...].
            sampling: as in `generate`.

        Raises:
            ModelError: the model was not trained on conversations.
            UsageError: a setting or message is wrong, or the last message does not fit into the context.
        """
        return reply_to(self.engine, self.tokenizer, turns_of(messages), settings(sampling))

    def stream(self, messages: str | Sequence[dict[str, str]], **sampling: Any) -> Iterator[str]:
        """As `chat`, the reply's pieces as they come."""
        return stream_reply(self.engine, self.tokenizer, turns_of(messages), settings(sampling))


def settings(values: dict[str, Any]) -> SamplingConfig:
    """Sampling settings, checked like those of a config file.

    Raises:
        UsageError: a name or value is wrong.
    """
    return build(SamplingConfig, {**dataclasses.asdict(SamplingConfig()), **values})


def turns_of(messages: str | Sequence[dict[str, str]]) -> list[Turn]:
    """Messages as turns.

    Raises:
        UsageError: a role is unknown, or there is no message.
    """
    if isinstance(messages, str):
        return [("user", messages)]
    for i, message in enumerate(messages):
        if message.get("role") not in ROLES:
            raise UsageError(f"message {i} has the role {message.get('role')!r}", f"use {', '.join(ROLES)}")
    if not messages:
        raise UsageError("there is no message", "give at least one")
    return [(m["role"], m.get("content", "")) for m in messages]


def load(reference: str | Path, device: str = "auto", slots: int = SLOTS, compiled: str = "late") -> Model:
    """A model ready to write.

    Args:
        reference: a model folder, checkpoint, run folder, MLflow run id, `latest` or `best`.
        device: `cpu` needs no torch; `cuda` and `mps` do; `auto` takes a GPU where there is one.
        slots: sequences written at the same time.
        compiled: when numba comes in on the CPU: `late`, `now` or `never`.

    Raises:
        ModelError: there is no such model, or its files are damaged.
        UsageError: the device is not on this machine.
    """
    from microgpt.runs.find import model_path

    folder = open_model(model_path(str(reference)))
    return Model(folder, Engine(_backend(folder, device, slots, compiled), slots))


def _backend(folder: ModelFolder, device: str, slots: int, compiled: str) -> Backend:
    weights = fold(folder.config, read_weights(folder))
    if device == "auto" and not _gpu_likely():
        device = "cpu"
    if device != "cpu":
        from microgpt.runtime import choose_device, prepare_process

        prepare_process()
        device = choose_device(device)
    if device != "cpu":
        from microgpt.inference.torch_backend import TorchBackend

        return TorchBackend(weights, slots, device)
    if weights.layer_bytes < ONE_THREAD_BYTES:
        from threadpoolctl import threadpool_limits

        threadpool_limits(1, user_api="blas")
    return LightBackend(weights, slots, compiled)


def _gpu_likely() -> bool:
    """Whether it is worth importing torch to ask for a GPU."""
    return sys.platform == "darwin" or os.path.exists("/dev/nvidiactl") or os.path.exists("/dev/kfd")
