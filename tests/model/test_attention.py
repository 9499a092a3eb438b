"""Attention in chunks is attention, and compiled training on a CPU takes it."""

from __future__ import annotations

import shutil

import pytest
import torch
import torch.nn.functional as F

from microgpt.config.compose import compose
from microgpt.model import attention
from microgpt.model.gpt import GPT
from microgpt.training.compiling import compiled_loss

COMPILER = pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler is here")


def drawn(tokens: int, kind: torch.dtype = torch.float64) -> list[torch.Tensor]:
    """q, k, v and a gradient of what comes of them, 2 rows of 3 heads of 8."""
    draw = torch.Generator().manual_seed(tokens)
    return [torch.randn(2, 3, tokens, 8, generator=draw, dtype=kind).requires_grad_() for _ in range(4)]


def documents(tokens: int) -> torch.Tensor:
    """A mask [2, 1, tokens, tokens] under which a token sees those of its own document before it, and itself."""
    numbers = torch.stack([torch.arange(tokens) // 5, torch.arange(tokens) // max(1, tokens // 2)])
    seen = (numbers[:, :, None] == numbers[:, None]) & torch.ones(tokens, tokens, dtype=torch.bool).tril()
    return torch.zeros(seen.shape, dtype=torch.float64).masked_fill(~seen, float("-inf"))[:, None]


@pytest.mark.parametrize("tokens", [1, 2, 255, 256, 257, 600])
@pytest.mark.parametrize("masked", [False, True])
def test_result_and_gradients_are_those_of_attention_in_one_piece(tokens: int, masked: bool) -> None:
    q, k, v, grad = drawn(tokens)
    mask = documents(tokens) if masked else None
    whole = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    chunked = attention.ChunkedAttention.apply(q, k, v, mask)
    torch.testing.assert_close(chunked, whole, rtol=1e-12, atol=1e-12)
    expected = torch.autograd.grad(whole, (q, k, v), grad)
    found = torch.autograd.grad(chunked, (q, k, v), grad)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


def test_products_are_made_in_the_format_of_the_values() -> None:
    q, k, v, grad = drawn(200, torch.float32)
    low = v.detach().bfloat16().requires_grad_()
    whole = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    chunked = attention.ChunkedAttention.apply(q, k, low, None)
    assert chunked.dtype == torch.float32
    torch.testing.assert_close(chunked, whole, rtol=0, atol=3e-2)
    expected = torch.autograd.grad(whole, (q, k, v), grad)
    found = torch.autograd.grad(chunked, (q, k, low), grad)
    assert [each.dtype for each in found] == [torch.float32, torch.float32, torch.bfloat16]
    for one, other in zip(found, expected, strict=True):
        assert (one.float() - other).norm() < 0.02 * other.norm()


def test_huge_scores_stay_finite() -> None:
    q, k, v, grad = drawn(150, torch.float32)
    found = attention.ChunkedAttention.apply(q * 1e4, k * 1e4, v, None)
    assert torch.isfinite(found).all()
    assert all(torch.isfinite(each).all() for each in torch.autograd.grad(found, (q, k, v), grad))


@COMPILER
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_compiled_training_takes_it_and_has_the_gradients_of_eager_training(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["model.n_layer=2", "model.n_embd=32", "model.n_head=4", "model.n_kv_head=2", "model.block_size=160"]
    model = GPT(compose(words).model, 60)
    model.init_weights(1)
    with torch.no_grad():  # matrices that begin at zero would let no gradient through
        for layer in model.layers:
            for matrix in (layer.attn_wo, layer.mlp_fc2):
                matrix.normal_(std=0.1, generator=torch.Generator().manual_seed(2))
    draw = torch.Generator().manual_seed(3)
    x, y = (torch.randint(0, 60, (3, 160), generator=draw) for _ in range(2))
    segments = (torch.arange(160)[None] // torch.tensor([[40], [160], [7]])).to(torch.int32)
    names = [name for name, _ in model.named_parameters()]
    expected = dict(zip(names, torch.autograd.grad(model.loss(x, y, None, segments), list(model.parameters()))))

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("PyTorch's own attention was called")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refused)
    torch._dynamo.reset()
    loss_of = compiled_loss(model, "cpu")
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        loss = loss_of(x, y, None, segments)
    found = dict(zip(names, torch.autograd.grad(loss, list(model.parameters()))))
    for name, wanted in expected.items():
        off = (found[name] - wanted).norm() / wanted.norm()
        assert off < (1e-4 if precision == "f32" else 0.05), f"{name}: {off}"
