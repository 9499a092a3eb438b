"""Both backends against the plain model: logits of every variant, and greedy tokens of every preset."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from microgpt.config.compose import compose
from microgpt.config.schema import ModelConfig, SamplingConfig
from microgpt.inference.engine import Backend, Engine, Request, Token
from microgpt.inference.light import PATIENCE, LightBackend
from microgpt.inference.torch_backend import TorchBackend
from microgpt.inference.weights import Weights, fold
from microgpt.model.gpt import GPT

VOCAB = 50
SHAPE = ModelConfig(n_layer=3, n_embd=32, n_head=4, block_size=32, init="normal", init_std=0.3)
GPT2 = {"mlp": "gelu", "norm": "layernorm", "position": "learned", "qk_norm": False, "tied": True}
MICRO = {"mlp": "relu", "norm": "rmsnorm_nogain", "embed_norm": True, "final_norm": False, "position": "learned"}
VARIANTS: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "llama": {"qk_norm": False},
    "gpt2": {**GPT2, "bias": True},
    "nanogpt": GPT2,
    "micro": {**MICRO, "qk_norm": False},
    "micro, normalised heads": MICRO,
    "arcee": {"mlp": "relu2", "qk_norm": False},
    "grouped": {"n_kv_head": 2},
    "one head of keys, biases": {"mlp": "swiglu", "bias": True, "norm": "layernorm", "n_kv_head": 1},
    "gpt2 as it was published": {**GPT2, "mlp": "gelu_tanh", "bias": True},
    "norms everywhere": {"mlp": "relu2", "qk_norm": False, "embed_norm": True, "norm": "layernorm", "bias": True},
    "odd widths": {"n_embd": 36, "n_head": 3, "mlp_hidden": 50, "mlp": "relu"},
    "wide": {"n_embd": 160, "n_head": 4, "mlp_hidden": 128, "n_layer": 1},
}
KINDS: dict[str, Callable[[Weights, int], Backend]] = {
    "numpy": lambda w, rows: LightBackend(w, rows, "never"),
    "numba": lambda w, rows: LightBackend(w, rows, "now"),
    "torch": TorchBackend,
}
kinds = pytest.mark.parametrize("kind", KINDS)


def plain(config: ModelConfig, vocab: int = VOCAB) -> GPT:
    """A model whose gains and biases are not those of a fresh one."""
    model = GPT(config, vocab)
    model.init_weights(1)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model.eval()


def folded(model: GPT) -> Weights:
    return fold(model.config, {name: p.detach().numpy() for name, p in model.named_parameters()})


@torch.no_grad()
def oracle(model: GPT, ids: list[int]) -> np.ndarray:
    return model(torch.tensor([ids]))[0, -1].numpy()


@kinds
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_those_of_the_plain_model(variant: str, kind: str) -> None:
    model = plain(replace(SHAPE, **VARIANTS[variant]))
    backend = KINDS[kind](folded(model), 6)
    draw = random.Random(3)
    texts = [draw.choices(range(VOCAB), k=k) for k in (3, 1, 7, 9, 2)]
    difference = size = 0.0

    def compare(logits: np.ndarray, ids: list[int]) -> None:
        nonlocal difference, size
        expected = oracle(model, ids)
        difference = max(difference, float(np.abs(logits - expected).max()))
        size = max(size, float(np.abs(expected).max()))

    for row, ids in enumerate(texts):
        compare(backend.prefill(row, ids), ids)
    for step in range(9):
        tokens = draw.choices(range(VOCAB), k=len(texts))
        for ids, token in zip(texts, tokens):
            ids.append(token)
        for logits, ids in zip(backend.decode(tokens), texts):
            compare(logits, ids)
        if step == 2:  # the last row takes the place of another one
            backend.move(len(texts) - 1, 1)
            texts[1] = texts.pop()
        elif step > 4:
            texts.pop()
            if step == 6:  # and a row begins again
                texts.append([5, 6])
                compare(backend.prefill(len(texts) - 1, texts[-1]), texts[-1])
    assert difference <= 2e-6 * max(1.0, size) * 3, f"{difference} of {size}"


@kinds
def test_a_prompt_may_fill_the_context_but_for_one(kind: str) -> None:
    model = plain(SHAPE)
    backend = KINDS[kind](folded(model), 1)
    ids = [i % VOCAB for i in range(31)]
    assert np.allclose(backend.prefill(0, ids), oracle(model, ids), atol=2e-5)
    assert np.allclose(backend.decode([7])[0], oracle(model, [*ids, 7]), atol=2e-5)


def test_numba_takes_over_while_a_text_is_written() -> None:
    model = plain(replace(SHAPE, block_size=4 * PATIENCE))
    late, never = LightBackend(folded(model), 1), LightBackend(folded(model), 1, "never")
    ids = [3]
    late.prefill(0, ids)
    never.prefill(0, ids)
    for i in range(3 * PATIENCE):
        if i == 2 * PATIENCE and late._loading is not None:
            late._loading.join()
        assert np.allclose(late.decode([i % VOCAB]), never.decode([i % VOCAB]), atol=2e-5)
    assert late._decoder is not None
    assert never._decoder is None


def greedy(engine: Engine, prompts: list[list[int]], count: int) -> list[list[int]]:
    """Greedy tokens after each prompt, as many sequences at a time as the engine takes."""
    found: list[list[int]] = [[] for _ in prompts]
    sampling = SamplingConfig(temperature=0, max_new_tokens=count)
    for prompt, ids in zip(prompts, found):

        def take(event: Any, ids: list[int] = ids) -> None:
            if isinstance(event, Token):
                ids.append(event.id)

        engine.submit(Request(prompt, sampling, []), take)
    while engine.step():
        pass
    return found


@torch.no_grad()
def disagreements(model: GPT, prompts: list[list[int]], written: list[list[int]]) -> list[str]:
    """Where a text leaves the plain model's likeliest token by more than rounding can explain."""
    wrong = []
    for prompt, ids in zip(prompts, written):
        logits = model(torch.tensor([[*prompt, *ids]]))[0, len(prompt) - 1 : -1]
        best = logits.max(dim=1).values
        chosen = logits[torch.arange(len(ids)), torch.tensor(ids)]
        short = (best - chosen) / logits.abs().max()
        wrong += [f"{prompt}: token {i} is {s:.1e} short" for i, s in enumerate(short.tolist()) if s > 2e-6]
    return wrong


@kinds
@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "large", "gpt2", "nanogpt_shakespeare", "micro"])
def test_a_thousand_prompts_have_the_plain_models_greedy_tokens(preset: str, kind: str) -> None:
    config = compose([f"model={preset}"], "train").model
    # one or two layers and few words of each, so that it takes seconds; benchmarks/same_answer.py takes them whole
    depth = 1 if config.n_embd > 512 else min(2, config.n_layer)
    model = plain(replace(config, init="normal", init_std=0.1, n_layer=depth), 200)
    draw = random.Random(1)
    prompts = [draw.choices(range(200), k=draw.randrange(1, 12)) for _ in range(1000)]
    engine = Engine(KINDS[kind](folded(model), 32))
    written = greedy(engine, prompts, 4)
    assert {len(ids) for ids in written} == {4}
    assert disagreements(model, prompts, written) == []
