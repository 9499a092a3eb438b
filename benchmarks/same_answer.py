"""The same answer everywhere (I5): greedy tokens of each backend after 1,000 prompts, against the plain model.

Where a token differs, the plain model's own logits say by how much the chosen one falls short of the likeliest.
"""

from __future__ import annotations

import json
import random
from typing import Any

from common import arguments

from microgpt.runtime import prepare_process

prepare_process()

import torch  # noqa: E402

from microgpt.config.compose import compose  # noqa: E402
from microgpt.config.schema import SamplingConfig  # noqa: E402
from microgpt.inference.engine import Backend, Engine, Request, Token  # noqa: E402
from microgpt.inference.light import LightBackend  # noqa: E402
from microgpt.inference.torch_backend import TorchBackend  # noqa: E402
from microgpt.inference.weights import Weights, fold  # noqa: E402
from microgpt.model.gpt import GPT  # noqa: E402

PRESETS = ("tiny", "small", "medium", "large", "gpt2", "nanogpt_shakespeare", "micro")
TOKENS = 8


def backends(weights: Weights) -> dict[str, Backend]:
    """Every path, with 32 rows and with one."""
    return {
        "numba, 32 rows": LightBackend(weights, 32, "now"),
        "numba, 1 row": LightBackend(weights, 1, "now"),
        "numpy": LightBackend(weights, 32, "never"),
        "torch": TorchBackend(weights, 32),
    }


def greedy(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    """Greedy tokens after each prompt."""
    found: list[list[int]] = [[] for _ in prompts]
    sampling = SamplingConfig(temperature=0, max_new_tokens=TOKENS)
    for prompt, ids in zip(prompts, found):

        def take(event: Any, ids: list[int] = ids) -> None:
            if isinstance(event, Token):
                ids.append(event.id)

        engine.submit(Request(prompt, sampling, []), take)
    while engine.step():
        pass
    return found


@torch.no_grad()
def shortfalls(model: GPT, prompts: list[list[int]], written: list[list[int]]) -> tuple[int, int, float]:
    """(tokens, tokens that are not the likeliest, the most in nats that one of them falls short)."""
    count = other = 0
    worst = 0.0
    for prompt, ids in zip(prompts, written):
        logits = model(torch.tensor([[*prompt, *ids[:-1]]]))[0, len(prompt) - 1 :]
        best = logits.max(dim=1)
        missed = best.indices != torch.tensor(ids)
        chosen = logits[torch.arange(len(ids)), torch.tensor(ids)]
        count, other = count + len(ids), other + int(missed.sum())
        worst = max(worst, float((best.values - chosen).max()))
    return count, other, worst


def main() -> None:
    given = arguments(__doc__ or "", 1)
    vocabulary = 4096
    for preset in ("tiny",) if given.smoke else PRESETS:
        config = compose([f"model={preset}", "model.init=normal"], "train").model
        model = GPT(config, vocabulary)
        model.init_weights(1)
        model.eval()
        weights = fold(config, {n: p.detach().numpy() for n, p in model.named_parameters()})
        draw = random.Random(1)
        longest = min(24, config.block_size - TOKENS)
        number = 50 if given.smoke else 1000
        prompts = [draw.choices(range(vocabulary), k=draw.randrange(1, longest + 1)) for _ in range(number)]
        for name, backend in backends(weights).items():
            if "1 row" in name and config.n_embd > 400:
                continue  # the same code as with 32 rows; hours for the largest
            written = greedy(Engine(backend, 1 if "1 row" in name else 32), prompts)
            count, other, worst = shortfalls(model, prompts, written)
            line = {
                "name": f"greedy tokens, {preset}, {name}: the plain model's",
                "ours": count - other,
                "other": count,
                "unit": "tokens",
                "ratio": round((count - other) / count, 6),
                "worst_shortfall_nats": worst,
                "goal": "1, or ties (I5)",
            }
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
