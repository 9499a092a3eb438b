"""One sequence on one thread: tokens a second of writing (I1) and of reading a prompt (I4), against llama.cpp."""

from __future__ import annotations

import sys
import time
from functools import partial
from typing import Any

from common import arguments, compared

from microgpt.runtime import prepare_process

prepare_process()

from random_models import gguf_of, random_model  # noqa: E402

from microgpt.config.schema import SamplingConfig  # noqa: E402
from microgpt.inference.engine import Request  # noqa: E402
from microgpt.inference.load import load  # noqa: E402

PROMPT = 256


def ours_decode(model: Any, count: int) -> float:
    """Tokens a second after the first one, greedy, through the engine."""
    request = Request([1, 2, 3, 4], SamplingConfig(temperature=0, max_new_tokens=count), [])
    stream = model.engine.stream(request)
    next(stream)
    started = time.perf_counter()
    written = sum(1 for _ in stream) - 1
    return written / (time.perf_counter() - started)


def ours_prefill(model: Any, ids: list[int]) -> float:
    """Prompt tokens a second."""
    started = time.perf_counter()
    model.engine.backend.prefill(0, ids)
    return len(ids) / (time.perf_counter() - started)


def llama(file: Any, block: int) -> Any:
    """llama.cpp with a GGUF file on one thread, and no other settings than its own."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel = block, 1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.verbosity = -1
    return xllamacpp.Server(params)


def theirs(server: Any, ids: list[int], count: int, figure: str) -> float:
    """What llama.cpp's own clock says of one completion."""
    words = {"prompt": ids, "n_predict": count, "temperature": 0.0, "ignore_eos": True, "cache_prompt": False}
    answer = server.handle_completions(words)
    return float(answer["timings"][figure])


def main() -> None:
    given = arguments(__doc__ or "", 7)
    presets = ("tiny",) if given.smoke else ("small", "medium", "large")
    for preset in presets:
        folder = random_model(preset)
        block = folder.config.block_size
        count = 32 if given.smoke else 200
        model = load(folder.path, "cpu", 1, "now")
        ids = [(i * 7) % 4000 + 5 for i in range(min(PROMPT, block - 8))]
        for dtype in ("f32",) if given.smoke else ("f32", "q8_0"):
            server = llama(gguf_of(folder, dtype), block)
            theirs(server, [1, 2, 3, 4], 8, "predicted_per_second")  # both warm
            ours_decode(model, 8)
            compared(
                f"decode, batch 1, {preset}: microgpt f32 over llama.cpp {dtype}",
                partial(ours_decode, model, count),
                partial(theirs, server, [1, 2, 3, 4], count, "predicted_per_second"),
                given.rounds,
                "at least 1 (I1)" if dtype == "f32" else "",
                "tokens/s",
            )
            if dtype == "f32":
                ours_prefill(model, ids)
                compared(
                    f"prefill of {len(ids)} tokens, {preset}: microgpt f32 over llama.cpp f32",
                    partial(ours_prefill, model, ids),
                    partial(theirs, server, ids, 1, "prompt_per_second"),
                    given.rounds,
                    "at least 2 (I4)",
                    "tokens/s",
                )
            del server
    sys.stdout.flush()


if __name__ == "__main__":
    main()
