"""Embeddings in the plane where they vary most, turned so that the picture of one step fits that of the last."""

from __future__ import annotations

import torch
from torch import Tensor


def principal(points: Tensor, dimensions: int) -> tuple[Tensor, list[float]]:
    """Coordinates [count, dimensions] on the principal axes, and each axis's share of the variance.

    The sign of an axis is that which makes its largest coordinate positive.
    """
    centred = points.double() - points.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    found = torch.zeros(len(points), dimensions, dtype=torch.float64)
    have = min(dimensions, len(s))
    found[:, :have] = u[:, :have] * s[:have]
    largest = found.abs().argmax(0)
    signs = torch.sign(found[largest, torch.arange(dimensions)])
    found *= torch.where(signs == 0, torch.ones_like(signs), signs)
    total = float((s * s).sum()) or 1.0
    shares = [float(x * x) / total for x in s[:dimensions]]
    return found, shares + [0.0] * (dimensions - len(shares))


def turned(points: Tensor, onto: Tensor) -> Tensor:
    """Points rotated or mirrored to lie as near as they can to others (orthogonal Procrustes, Schönemann 1966)."""
    u, _, v = torch.linalg.svd(points.mT @ onto)
    return points @ (u @ v)
