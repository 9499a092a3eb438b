"""What the last update did: histograms of every parameter, and why one weight moved."""

from __future__ import annotations

import torch
from torch import Tensor

from microgpt.errors import UsageError
from microgpt.lab.learner import Movement
from microgpt.lab.looks.scene import Scene, Tensors, stats
from microgpt.lab.messages import MOST_NUMBERS
from microgpt.lab.panels import (
    Matrix,
    MatrixData,
    MatrixParams,
    ParametersData,
    ParametersParams,
    Quantity,
    Term,
    WeightData,
    WeightParams,
)
from microgpt.training.optimizer import orthogonalised


def histogram(values: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Counts [bins] and edges [bins + 1] of all numbers of a tensor."""
    flat = values.detach().double().flatten()
    flat = flat[flat.isfinite()]
    if not len(flat):
        return torch.zeros(bins), torch.linspace(0, 1, bins + 1)
    low, high = float(flat.min()), float(flat.max())
    if high - low < 1e-12:
        low, high = low - 0.5, high + 0.5
    counts, edges = torch.histogram(flat, bins, range=(low, high))
    return counts.float(), edges.float()


def groups(scene: Scene) -> dict[str, dict[str, object]]:
    """The optimizer's group of each parameter, by name."""
    model, optimizer = scene.learner.model, scene.learner.optimizer
    names = {p: n for n, p in model.named_parameters()}
    return {names[p]: group for group in optimizer.param_groups for p in group["params"]}


def parameters(scene: Scene, params: ParametersParams) -> tuple[ParametersData, Tensors]:
    """Histograms of weights, gradients and update ratios."""
    moved = scene.moved()
    matrices: list[Matrix] = []
    columns: dict[str, list[Tensor]] = {}

    def add(kind: str, values: Tensor) -> None:
        counts, edges = histogram(values, params.bins)
        columns.setdefault(f"{kind}_counts", []).append(counts)
        columns.setdefault(f"{kind}_edges", []).append(edges)

    kinds = {name: str(group["kind"]) for name, group in groups(scene).items()}
    for name, weight in scene.model.named_parameters():
        add("weight", weight)
        ratio = gradient = None
        if moved is not None:
            gradient = moved.gradients[name] * moved.clip
            change = moved.after[name] - moved.before[name]
            ratio = float(change.norm() / (moved.after[name].norm() + 1e-12))
            add("gradient", gradient)
            shares = (change.abs() / (moved.before[name].abs() + 1e-12)).flatten()
            add("update", shares[shares > 0].log10())
        matrices.append(
            Matrix(
                name=name,
                shape=list(weight.shape),
                optimizer=kinds[name],
                weight=stats(weight),
                gradient=None if gradient is None else stats(gradient),
                update_ratio=ratio,
            )
        )
    return ParametersData(matrices=matrices), {name: torch.stack(parts) for name, parts in columns.items()}


def named(scene: Scene, name: str) -> Tensor:
    """A parameter.

    Raises:
        UsageError: there is none of that name.
    """
    for known, parameter in scene.model.named_parameters():
        if known == name:
            return parameter.detach()
    raise UsageError("there is no parameter of that name", "the metadata lists them")


def matrix(scene: Scene, params: MatrixParams) -> tuple[MatrixData, Tensors]:
    """The numbers of a parameter."""
    weight = named(scene, params.name)
    rows = len(weight)
    if weight.numel() > MOST_NUMBERS:
        rows = max(1, MOST_NUMBERS // (weight.numel() // len(weight)))
    found = {"weight": weight[:rows]}
    moved = scene.moved()
    if moved is not None:
        found["gradient"] = (moved.gradients[params.name] * moved.clip)[:rows]
        found["update"] = (moved.after[params.name] - moved.before[params.name])[:rows]
    return MatrixData(name=params.name, shape=list(weight.shape), shown=list(weight[:rows].shape)), found


def weight(scene: Scene, params: WeightParams) -> tuple[WeightData, Tensors]:
    """Why a weight moved: the optimizer's formula with its numbers, in float64 from what the update was made of."""
    whole = named(scene, params.name)
    if len(params.index) != whole.dim() or any(i >= n for i, n in zip(params.index, whole.shape)):
        raise UsageError(f"there is no weight at {params.index}", f"the parameter has the shape {list(whole.shape)}")
    moved = scene.moved()
    if moved is None:
        raise UsageError("nothing has moved at step 0", "look at a later step")
    at = tuple(params.index)
    group = groups(scene)[params.name]
    explain = _muon if group["kind"] == "muon" else _adamw
    before, after = float(moved.before[params.name][at].double()), float(moved.after[params.name][at].double())
    quantities, terms = explain(moved, params.name, at, group)
    raw = float(moved.gradients[params.name][at].double())
    first = [
        Quantity(name="gradient", formula="d loss / d weight", value=raw),
        Quantity(name="clip", formula="min(1, grad_clip / norm of all gradients)", value=moved.clip),
    ]
    first.append(Quantity(name="g", formula="gradient * clip", value=raw * moved.clip))
    silenced = before == 0 == after
    if silenced:
        terms = [Term(name="switched off", value=0.0)]
    data = WeightData(
        name=params.name,
        index=params.index,
        optimizer=str(group["kind"]),
        before=before,
        after=after,
        change=after - before,
        quantities=first + quantities,
        terms=terms,
        error=abs(after - before - sum(t.value for t in terms)),
    )
    return data, {}


Explained = tuple[list[Quantity], list[Term]]


def _said(name: str, formula: str, value: float) -> Quantity:
    return Quantity(name=name, formula=formula, value=value)


def _adamw(moved: Movement, name: str, at: tuple[int, ...], group: dict[str, object]) -> Explained:
    """Loshchilov and Hutter 2017, arXiv:1711.05101."""
    betas = group["betas"]
    assert isinstance(betas, (tuple, list))
    beta1, beta2 = (float(b) for b in betas)
    eps, decay, rate = float(str(group["eps"])), float(str(group["weight_decay"])), moved.rates[name]
    g = float(moved.gradients[name][at].double()) * moved.clip
    w = float(moved.before[name][at].double())
    entries = moved.moments.get(name, {})
    m0 = float(entries["exp_avg"][at].double()) if entries else 0.0
    v0 = float(entries["exp_avg_sq"][at].double()) if entries else 0.0
    t = int(entries["step"]) + 1 if entries else 1
    m, v = beta1 * m0 + (1 - beta1) * g, beta2 * v0 + (1 - beta2) * g * g
    correct1, correct2 = 1 - beta1**t, 1 - beta2**t
    mean, square = m / correct1, v / correct2
    terms = [
        Term(name="step", value=-rate * mean / (square**0.5 + eps)),
        Term(name="decay", value=-rate * decay * w),
    ]
    quantities = [
        _said("learning rate", "peak * schedule", rate),
        _said("t", "updates of this weight, this one included", float(t)),
        _said("m before", "first moment", m0),
        _said("v before", "second moment", v0),
        _said("m", "beta1 * m before + (1 - beta1) * g", m),
        _said("v", "beta2 * v before + (1 - beta2) * g * g", v),
        _said("m corrected", "m / (1 - beta1^t)", mean),
        _said("v corrected", "v / (1 - beta2^t)", square),
        _said("step", "-learning rate * m corrected / (sqrt(v corrected) + eps)", terms[0].value),
        _said("decay", "-learning rate * weight_decay * weight", terms[1].value),
    ]
    return quantities, terms


def _muon(moved: Movement, name: str, at: tuple[int, ...], group: dict[str, object]) -> Explained:
    """Jordan et al. 2024, as in training/optimizer.py."""
    momentum, decay = float(str(group["momentum"])), float(str(group["weight_decay"]))
    rate = moved.rates[name]
    g = moved.gradients[name] * moved.clip
    buffer = moved.moments.get(name, {}).get("momentum", torch.zeros_like(g))
    after = torch.lerp(buffer, g, 1 - momentum)
    ahead = torch.lerp(g, after, momentum)
    direction = orthogonalised(ahead[None])[0]
    rows, columns = g.shape
    scale = max(1.0, rows / columns) ** 0.5
    w = float(moved.before[name][at].double())
    terms = [
        Term(name="step", value=-rate * scale * float(direction[at].double())),
        Term(name="decay", value=-rate * decay * w),
    ]
    quantities = [
        _said("learning rate", "peak * schedule", rate),
        _said("momentum before", "running mean of gradients", float(buffer[at])),
        _said("momentum", "momentum before + (1 - beta) * (g - momentum before)", float(after[at])),
        _said("ahead", "g + beta * (momentum - g)", float(ahead[at])),
        _said(
            "orthogonalised", "of the whole matrix: singular values near 1, by Newton-Schulz", float(direction[at])
        ),
        _said("scale", "sqrt(max(1, rows / columns))", scale),
        _said("step", "-learning rate * scale * orthogonalised", terms[0].value),
        _said("decay", "-learning rate * weight_decay * weight", terms[1].value),
    ]
    return quantities, terms
