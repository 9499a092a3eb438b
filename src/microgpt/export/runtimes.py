"""The programs that an export is for, each behind the same three questions, so that one proof asks them all."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
import numpy.typing as npt

from microgpt.checkpoints.model import ModelFolder, load_weights
from microgpt.errors import ModelError

Scores = npt.NDArray[np.float64]
TOP = 4096  # llama.cpp tells its log-probabilities as JSON: the likeliest so many of a larger vocabulary


class Runtime(Protocol):
    """A program with an export loaded.

    Attributes:
        name: of the program with its version.
    """

    name: str

    def encode(self, text: str) -> list[int]:
        """Ids of a text as the program begins it by default: with BOS."""
        ...

    def scores(self, ids: Sequence[int]) -> Scores:
        """Log-probabilities of the token after these, shape [vocab_size], NaN where the program does not say."""
        ...

    def greedy(self, ids: Sequence[int], count: int, end: Sequence[int]) -> list[int]:
        """The likeliest tokens one after another, at most `count`, without the end token that stops them."""
        ...


def installed(module: str) -> bool:
    """Whether a module could be imported; it is not."""
    from importlib.util import find_spec

    return find_spec(module) is not None


def log_softmax(logits: npt.NDArray[Any]) -> Scores:
    """Log-probabilities in float64 over the last dimension."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def step_by_step(
    step: Callable[[Sequence[int]], npt.NDArray[Any]], ids: Sequence[int], count: int, end: Sequence[int]
) -> list[int]:
    """Greedy tokens of a program that is given new ids and keeps its own cache of the earlier ones."""
    found: list[int] = []
    new = list(ids)
    while len(found) < count:
        token = int(step(new).argmax())
        if token in end:
            break
        found.append(token)
        new = [token]
    return found


class Own:
    """A model directory in the project's own plain PyTorch model: what all others are compared with.

    Args:
        folder: an opened model.
    """

    def __init__(self, folder: ModelFolder) -> None:
        self.name = f"microgpt {version('microgpt')}"
        self._folder, self._model = folder, load_weights(folder)

    def encode(self, text: str) -> list[int]:
        return [self._folder.tokenizer.bos, *self._folder.tokenizer.encode(text)]

    def scores(self, ids: Sequence[int]) -> Scores:
        import torch

        with torch.inference_mode():
            return log_softmax(self._model(torch.tensor([list(ids)]))[0, -1].numpy())

    def greedy(self, ids: Sequence[int], count: int, end: Sequence[int]) -> list[int]:
        import torch

        from microgpt.model.gpt import Cache

        cache = Cache(self._folder.config, 1, torch.device("cpu"), torch.float32)

        def step(new: Sequence[int]) -> npt.NDArray[Any]:
            with torch.inference_mode():
                return self._model(torch.tensor([list(new)]), cache=cache)[0, -1].numpy()

        return step_by_step(step, ids, count, end)


class Transformers:
    """An exported folder in transformers' auto classes.

    Args:
        folder: of the export.
    """

    def __init__(self, folder: Path) -> None:
        import torch
        import transformers
        from transformers.utils import logging

        self.name = f"transformers {version('transformers')}"
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        auto: Any = transformers
        self._tokenizer = auto.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
        self._model = auto.AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, dtype=torch.float32
        ).eval()

    def encode(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def scores(self, ids: Sequence[int]) -> Scores:
        return log_softmax(self._step(ids, None)[0])

    def greedy(self, ids: Sequence[int], count: int, end: Sequence[int]) -> list[int]:
        past: Any = None

        def step(new: Sequence[int]) -> npt.NDArray[Any]:
            nonlocal past
            logits, past = self._step(new, past)
            return logits

        return step_by_step(step, ids, count, end)

    def _step(self, ids: Sequence[int], past: Any) -> tuple[npt.NDArray[Any], Any]:
        import torch

        with torch.inference_mode():
            out = self._model(torch.tensor([list(ids)]), past_key_values=past, use_cache=True)
        return out.logits[0, -1].numpy(), out.past_key_values


class LlamaCpp:
    """A GGUF file in llama.cpp's own server, in this process on a free local port, in float32 throughout.

    Args:
        file: of the export.
        folder: the model that was exported.
    """

    def __init__(self, file: Path, folder: ModelFolder) -> None:
        import xllamacpp

        self.name = f"llama.cpp (xllamacpp {version('xllamacpp')})"
        self._vocab_size, tokens = folder.vocab_size, range(folder.vocab_size)
        self._letter = next(i for i in tokens if (text := folder.tokenizer.decode([i])) and "\ufffd" not in text)
        llama: Any = xllamacpp
        params = llama.CommonParams()
        params.model.path = str(file)
        params.n_ctx, params.n_parallel, params.n_gpu_layers = folder.config.block_size, 1, 0
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
        params.flash_attn_type = llama.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.cache_type_k = params.cache_type_v = llama.ggml_type.GGML_TYPE_F32
        params.warmup, params.verbosity = False, -1
        try:
            self._server = llama.Server(params)
        except Exception as error:  # a C++ exception of whatever kind
            raise ModelError(
                f"llama.cpp does not load {file.name}: {str(error)[:200]}", "report it with the model's config"
            ) from None
        self._address = self._server.listening_address

    def encode(self, text: str) -> list[int]:
        return self._ask("tokenize", {"content": text, "add_special": True, "parse_special": False})["tokens"]

    def scores(self, ids: Sequence[int]) -> Scores:
        found = np.full(self._vocab_size, np.nan)
        # It says nothing where the token drawn is an end or half a character. A bias makes it draw another one; the
        # probabilities that it tells are those before.
        bias = [[self._letter, 1e4]]
        more = {"n_predict": 1, "n_probs": min(self._vocab_size, TOP), "logit_bias": bias}
        for entry in self._complete(ids, more)["completion_probabilities"][0]["top_logprobs"]:
            found[entry["id"]] = entry["logprob"]
        return found

    def greedy(self, ids: Sequence[int], count: int, end: Sequence[int]) -> list[int]:
        tokens: list[int] = self._complete(ids, {"n_predict": count})["tokens"]
        ended = [i for i, token in enumerate(tokens) if token in end]
        return tokens[: ended[0]] if ended else tokens

    def _complete(self, ids: Sequence[int], more: dict[str, Any]) -> Any:
        always = {"temperature": 0, "top_k": 1, "repeat_penalty": 1.0, "return_tokens": True, "cache_prompt": False}
        return self._ask("completion", {"prompt": list(ids), **always, **more})

    def _ask(self, path: str, body: dict[str, Any]) -> Any:
        request = Request(f"{self._address}/{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=600) as answer:  # never through a proxy
                return json.load(answer)
        except HTTPError as error:
            raise ModelError(
                f"llama.cpp cannot run it: {error.read()[:200]!r}", "report it with the model's config"
            ) from None


class OnnxRuntime:
    """An exported folder in onnxruntime on the CPU, its tokenizer in the tokenizers library.

    Args:
        folder: of the export.
        file: the graph in it.
    """

    def __init__(self, folder: Path, file: str) -> None:
        import onnxruntime
        from tokenizers import Tokenizer

        self.name = f"onnxruntime {version('onnxruntime')}"
        fast: Any = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._encode = fast.encode
        runtime: Any = onnxruntime
        options = runtime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = runtime.InferenceSession(str(folder / file), options, providers=["CPUExecutionProvider"])
        self._outputs: list[str] = [output.name for output in self._session.get_outputs()]
        shapes = {i.name: i.shape for i in self._session.get_inputs() if i.name != "input_ids"}
        self._empty = {name: np.zeros((1, s[1], 0, s[3]), np.float32) for name, s in shapes.items()}

    def encode(self, text: str) -> list[int]:
        return list(self._encode(text).ids)

    def scores(self, ids: Sequence[int]) -> Scores:
        return log_softmax(self._step(ids, self._empty)[0])

    def greedy(self, ids: Sequence[int], count: int, end: Sequence[int]) -> list[int]:
        past = self._empty

        def step(new: Sequence[int]) -> npt.NDArray[Any]:
            nonlocal past
            logits, past = self._step(new, past)
            return logits

        return step_by_step(step, ids, count, end)

    def _step(
        self, ids: Sequence[int], past: dict[str, npt.NDArray[Any]]
    ) -> tuple[npt.NDArray[Any], dict[str, npt.NDArray[Any]]]:
        feeds = {"input_ids": np.array([list(ids)], np.int64), **past}
        found = dict(zip(self._outputs, self._session.run(None, feeds)))
        logits = found.pop("logits")[0, -1]
        return logits, {name.replace("present", "past_key_values"): array for name, array in found.items()}
