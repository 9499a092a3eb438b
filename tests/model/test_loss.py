"""Cross-entropy in chunks is cross-entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from microgpt.config.compose import compose
from microgpt.model import loss
from microgpt.model.gpt import GPT


def case(tokens: int, words: int, kind: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """hidden, head and targets, every fifth of them not counted."""
    draw = torch.Generator().manual_seed(1)
    hidden = torch.randn(tokens, 16, generator=draw, dtype=kind, requires_grad=True)
    head = torch.randn(words, 16, generator=draw, dtype=kind, requires_grad=True)
    targets = torch.randint(0, words, (tokens,), generator=draw)
    targets[::5] = -1
    return hidden, head, targets


@pytest.mark.parametrize("tokens", [1, 511, 512, 1300])
@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
def test_loss_and_gradients_are_those_of_whole_logits(tokens: int, kind: torch.dtype) -> None:
    hidden, head, targets = case(tokens, 300, kind)
    whole = F.cross_entropy(hidden @ head.T, targets, ignore_index=-1, reduction="sum")
    expected = torch.autograd.grad(whole / 7, (hidden, head))
    chunked = loss.ChunkedCrossEntropy.apply(hidden, head, targets)
    found = torch.autograd.grad(chunked / 7, (hidden, head))
    close = {"rtol": 1e-5, "atol": 1e-5} if kind == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    assert chunked.dtype == kind
    torch.testing.assert_close(chunked, whole, **close)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, **close)


def test_only_the_gradients_that_are_wanted_are_made() -> None:
    hidden, head, targets = case(40, 50, torch.float64)
    frozen = loss.ChunkedCrossEntropy.apply(hidden, head.detach(), targets)
    assert torch.autograd.grad(frozen, hidden)[0].abs().sum() > 0
    with torch.no_grad():
        assert not loss.ChunkedCrossEntropy.apply(hidden, head, targets).requires_grad


def test_huge_logits_stay_finite() -> None:
    hidden, head, targets = case(40, 50, torch.float32)
    lost = loss.ChunkedCrossEntropy.apply(hidden * 1e4, head * 1e4, targets)
    assert torch.isfinite(lost)
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(lost, (hidden, head)))


def test_a_large_vocabulary_is_taken_in_chunks_and_a_small_one_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[int] = []
    kept = loss.ChunkedCrossEntropy.apply

    def noted(hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        shapes.append(len(head))
        return kept(hidden, head, targets)

    monkeypatch.setattr(loss.ChunkedCrossEntropy, "apply", noted)
    config = compose(["model=tiny"], "train").model
    for words in (loss.LARGE - 1, loss.LARGE):
        model = GPT(config, words)
        model.init_weights(1)
        tokens = torch.randint(0, words, (2, 8))
        total = model.loss(tokens, tokens)
        each = model.losses(tokens, tokens)
        torch.testing.assert_close(total, each.sum(), rtol=1e-5, atol=1e-4)
    assert shapes == [loss.LARGE]
