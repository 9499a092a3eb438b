"""One optimizer object: Muon for the matrices of the layers, AdamW for everything else.

AdamW: Loshchilov and Hutter 2017, arXiv:1711.05101. Muon: Jordan et al. 2024, kellerjordan.github.io/posts/muon:
the momentum of a matrix is replaced by the nearest orthogonal one, found by five Newton-Schulz steps.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from microgpt.config.schema import OptimizerConfig
from microgpt.training.shards import is_shard, local, part_of, whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalised(matrices: Tensor) -> Tensor:
    """Matrices [count, rows, columns] with all singular values brought near 1.

    In float32 on the CPU, which has no fast bfloat16, and bfloat16 on a GPU.
    """
    a, b, c = NEWTON_SCHULZ
    x = matrices.bfloat16() if matrices.is_cuda else matrices.float()
    flipped = x.shape[1] > x.shape[2]
    if flipped:
        x = x.mT
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    if x.dtype == torch.float32 and x.shape[2] >= 2 * x.shape[1]:
        x = _iterated_on_the_gram(x)
    else:
        for _ in range(NEWTON_SCHULZ_STEPS):
            gram = x @ x.mT
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if flipped else x).to(matrices.dtype)


def _iterated_on_the_gram(x: Tensor) -> Tensor:
    """The same steps for wide matrices [count, rows, columns], in products of rows by rows.

    Step k is x <- p(g) x with g = x x^T and p a polynomial, so that g <- p(g) g p(g); the factors are gathered, and
    the wide matrix is read twice instead of ten times: half the arithmetic of 128 by 512. The small singular values
    that a square loses are those whose factor is the constant of p, whatever they are; in bfloat16 it loses too many.
    """
    a, b, c = NEWTON_SCHULZ
    gram = x @ x.mT
    factors = None
    for step in range(NEWTON_SCHULZ_STEPS):
        factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal(dim1=1, dim2=2).add_(a)
        factors = factor if factors is None else factor @ factors
        if step + 1 < NEWTON_SCHULZ_STEPS:
            gram = factor @ gram @ factor
    assert factors is not None
    return factors @ x


class MuonAdamW(torch.optim.Optimizer):
    """Two kinds of parameter groups, told apart by their `kind`.

    `muon` groups have `lr`, `momentum` and `weight_decay`; `adamw` groups `lr`, `betas`, `eps`, `weight_decay`.
    """

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Apply the gradients; parameters without one stay."""
        for group in self.param_groups:
            if group["kind"] == "muon":
                self._muon(group)
            else:
                self._adamw(group)

    def _adamw(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        parts = local(params)
        for p, part in zip(params, parts, strict=True):
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), dtype=torch.float32, device=p.device),
                    "exp_avg": torch.zeros_like(part),
                    "exp_avg_sq": torch.zeros_like(part),
                }
        beta1, beta2 = group["betas"]
        adamw(
            parts,
            local([p.grad for p in params if p.grad is not None]),
            [self.state[p]["exp_avg"] for p in params],
            [self.state[p]["exp_avg_sq"] for p in params],
            [],
            [self.state[p]["step"] for p in params],
            fused=params[0].dtype != torch.float64 and params[0].device.type in ("cpu", "cuda"),
            amsgrad=False,
            beta1=beta1,
            beta2=beta2,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _muon(self, group: dict[str, Any]) -> None:
        by_shape: dict[tuple[int, ...], list[Tensor]] = defaultdict(list)
        for p in group["params"]:
            if p.grad is not None:
                by_shape[tuple(p.shape)].append(p)
        momentum, lr = group["momentum"], group["lr"]
        for (rows, columns), params in by_shape.items():
            buffers: list[Tensor] = []
            parts = local(params)
            for p, part in zip(params, parts, strict=True):
                if "momentum" not in self.state[p]:
                    self.state[p]["momentum"] = torch.zeros_like(part)
                buffers.append(self.state[p]["momentum"])
            grads: list[Any] = local([p.grad for p in params if p.grad is not None])
            torch._foreach_lerp_(buffers, grads, 1 - momentum)
            ahead = torch._foreach_lerp(grads, buffers, momentum)  # Nesterov's look ahead
            if is_shard(params[0]):
                updates = [_gathered_update(a, p) for a, p in zip(ahead, params, strict=True)]
            else:
                # one batch of matrices a shape: Newton-Schulz is then a few large products
                updates = list(orthogonalised(torch.stack(list(ahead))).unbind())
            scale = max(1.0, rows / columns) ** 0.5
            if group["weight_decay"]:
                torch._foreach_mul_(parts, 1 - lr * group["weight_decay"])
            torch._foreach_add_(parts, updates, alpha=-lr * scale)


def _gathered_update(ahead: Tensor, parameter: Tensor) -> Tensor:
    """This process's part of a divided matrix's update: it is gathered, since no part of it is orthogonal alone.

    A matrix at a time, so that the memory of one is all that it takes; every process does the same arithmetic.
    """
    return part_of(orthogonalised(whole(ahead, parameter)[None])[0], parameter)


def check_state(optimizer: MuonAdamW, saved: dict[str, Any]) -> None:
    """Hold a saved state against an optimizer; PyTorch takes tensors of any shape, and fails at a later step.

    Raises:
        ValueError: it is another optimizer's.
        KeyError: a part is missing.
    """
    state = {int(index): entries for index, entries in saved["state"].items()}
    known: set[int] = set()
    for group, theirs in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        for key, value in group.items():
            if key != "params" and type(theirs[key]) is not type(value) and not isinstance(value, tuple):
                raise ValueError(f"{key} is {type(theirs[key]).__name__}")
        names = {"momentum"} if group["kind"] == "muon" else {"step", "exp_avg", "exp_avg_sq"}
        for index, parameter in zip(theirs["params"], group["params"], strict=True):
            known.add(index)
            entries = state.get(index, {})
            if state and set(entries) != names:  # none at all: no update was made yet
                raise ValueError(f"parameter {index} has {', '.join(sorted(entries)) or 'nothing'}")
            for name, tensor in entries.items():
                if tensor.shape != (() if name == "step" else parameter.shape):
                    raise ValueError(f"{name} of parameter {index} has another shape")
    if known != set(range(len(known))) or not known >= set(state):
        raise ValueError("its parameters are numbered otherwise")


def make_optimizer(model: nn.Module, config: OptimizerConfig) -> MuonAdamW:
    """The optimizer of a model; each group remembers its peak learning rate as `peak`.

    Raises:
        ValueError: the learning rate is still auto.
    """
    if config.learning_rate is None:
        raise ValueError("optimizer.learning_rate is auto: resolve the config first")
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if config.name == "muon" and parameter.dim() == 2 and name.startswith("layer"):
            matrices.append(parameter)
        else:
            (decayed if parameter.dim() == 2 else vectors).append(parameter)
    shared = {"kind": "adamw", "betas": (config.beta1, config.beta2), "eps": config.eps}
    rate = config.learning_rate
    groups: list[dict[str, Any]] = [
        {"params": decayed, "lr": rate, "peak": rate, "weight_decay": config.weight_decay, **shared},
        {"params": vectors, "lr": rate, "peak": rate, "weight_decay": 0.0, **shared},
        {
            "params": matrices,
            "kind": "muon",
            "lr": config.muon_learning_rate,
            "peak": config.muon_learning_rate,
            "momentum": config.muon_momentum,
            "weight_decay": config.weight_decay,
        },
    ]
    return MuonAdamW([g for g in groups if g["params"]])
