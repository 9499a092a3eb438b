"""What the model makes of tokens: attention, next-token probabilities, logit lens, losses, a token's story."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from microgpt.lab.learner import tensors_of
from microgpt.lab.looks.scene import MOST_TOKENS, Row, Scene, Tensors
from microgpt.lab.looks.tracer import Listener
from microgpt.lab.panels import (
    AttentionData,
    AttentionParams,
    LensData,
    LensLayer,
    LensParams,
    ProbabilitiesData,
    ProbabilitiesParams,
    TokenData,
    TokenParams,
    TokenRow,
    TokensData,
    TokensParams,
)
from microgpt.model.gpt import GPT


@torch.no_grad()
def heard(model: GPT, row: Row) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [tokens, vocab_size], and weights and scores of attention [layers, heads, tokens, tokens] of a row."""
    inputs, _, positions, segments = row.cut
    with Listener() as listener:
        logits = model(inputs, positions, segments)
    weights = torch.stack([a.weights[0] for a in listener.attention])
    return logits[0].float(), weights, torch.stack([a.logits[0] for a in listener.attention])


def attention(scene: Scene, params: AttentionParams) -> tuple[AttentionData, Tensors]:
    """Attention of all layers and heads."""
    row = scene.rows(params)
    _, weights, logits = heard(scene.model, row)
    return AttentionData(tokens=row.tokens(), targets=row.targets()), {"weights": weights, "logits": logits}


def kept(logits: Tensor, temperature: float, top_k: int, top_p: float) -> Tensor:
    """Probabilities [vocab_size] after temperature, top-k and top-p, in the order of the engine."""
    probabilities = torch.softmax(logits.double() / temperature, dim=-1)
    values, order = torch.sort(probabilities, descending=True, stable=True)
    if 0 < top_k < len(values):
        values[top_k:] = 0
        values /= values.sum()
    if top_p < 1:
        values[(values.cumsum(0) - values) >= top_p] = 0
    values /= values.sum()
    return torch.zeros_like(values).scatter(0, order, values)


def probabilities(scene: Scene, params: ProbabilitiesParams) -> tuple[ProbabilitiesData, Tensors]:
    """The next token."""
    row = scene.rows(params)
    at = row.position(params.position)
    logits, _, _ = heard(scene.model, row)
    chances = kept(logits[at], params.temperature, params.top_k, params.top_p)
    positive = chances[chances > 0]
    data = ProbabilitiesData(
        tokens=row.tokens(),
        position=at,
        target=row.targets()[at],
        top=scene.likely(chances, params.count),
        entropy=float(-(positive * positive.log()).sum()),
    )
    return data, {"logits": logits[at]}


@torch.no_grad()
def residuals(model: GPT, row: Row) -> list[Tensor]:
    """The residual stream [tokens, n_embd] before the first layer and after every one."""
    inputs, _, positions, segments = row.cut
    found: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda m, i, out: found.append(out[0])) for layer in model.layers]
    hooks.append(model.layers[0].register_forward_pre_hook(lambda m, i: found.append(i[0][0])))
    try:
        model(inputs, positions, segments)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@torch.no_grad()
def lens(scene: Scene, params: LensParams) -> tuple[LensData, Tensors]:
    """The head on every layer's residual stream (nostalgebraist 2020, "interpreting GPT: the logit lens")."""
    row = scene.rows(params)
    at = row.position(params.position)
    target = row.cut[1][0]
    layers: list[LensLayer] = []
    likely: list[Tensor] = []
    for i, x in enumerate(residuals(scene.model, row)):
        normed = x if scene.model.final_norm is None else scene.model.final_norm(x)
        chances = torch.softmax(F.linear(normed, scene.model.head).float(), dim=-1)
        targeted = chances.gather(1, target.clamp(min=0)[:, None])[:, 0] * (target >= 0)
        likely.append(targeted)
        name = f"layer{i - 1}" if i else "embedding"
        goal = float(targeted[at]) if target[at] >= 0 else None
        layers.append(LensLayer(name=name, top=scene.likely(chances[at], params.count), target_prob=goal))
    data = LensData(tokens=row.tokens(), position=at, target=row.targets()[at], layers=layers)
    return data, {"target_probs": torch.stack(likely)}


@torch.no_grad()
def tokens(scene: Scene, params: TokensParams) -> tuple[TokensData, Tensors]:
    """The loss of every token of the batch."""
    batch = scene.batch()
    inputs, targets, positions, segments = tensors_of(batch)
    losses = scene.model.losses(inputs, targets, positions, segments)
    lengths = (torch.from_numpy(batch.index) >= 0).sum(1)
    rows = [
        TokenRow(
            tokens=scene.shown(inputs[i]),
            targets=scene.shown(targets[i]),
            length=int(lengths[i]),
            doc=scene.tokenizer.decode(inputs[i, : int(lengths[i])].tolist()),
        )
        for i in range(len(inputs))
    ]
    return TokensData(rows=rows, loss=float(losses.sum()) / max(1, batch.target_count)), {"losses": losses}


def token(scene: Scene, params: TokenParams) -> tuple[TokenData, Tensors]:
    """One token: what it sees, what it predicts, what its loss would change."""
    row = scene.rows(params)
    at = row.position(params.position)
    inputs, targets, positions, segments = row.cut
    target = int(targets[0, at])
    _, weights, _ = heard(scene.model, row)
    embedded: list[Tensor] = []

    def keep(module: object, given: tuple[Tensor, ...]) -> None:
        given[0].retain_grad()
        embedded.append(given[0])

    model = scene.model
    hook = model.layers[0].register_forward_pre_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(inputs, positions, segments)[0, at].float()
            logits.retain_grad()
            chances = torch.softmax(logits.detach(), dim=-1)
            if target >= 0:
                loss = F.cross_entropy(logits[None], torch.tensor([target]))
                loss.backward()
    finally:
        hook.remove()
    empty = torch.zeros(inputs.shape[1])
    moved = {n: float(p.grad.norm()) for n, p in model.named_parameters() if p.grad is not None}
    saliency, gradient = embedded[0].grad, logits.grad
    model.zero_grad(set_to_none=True)
    data = TokenData(
        tokens=row.tokens(),
        position=at,
        target=row.targets()[at],
        loss=float(-chances[target].log()) if target >= 0 else None,
        rank=int((chances > chances[target]).sum()) + 1 if target >= 0 else None,
        top=scene.likely(chances, 5),
        parameters=moved,
    )
    return data, {
        "attention": weights[:, :, at],
        "saliency": empty if saliency is None else saliency[0].norm(dim=-1),
        "gradient": torch.zeros_like(chances) if gradient is None else gradient,
    }


__all__ = ["MOST_TOKENS", "attention", "heard", "kept", "lens", "probabilities", "residuals", "token", "tokens"]
