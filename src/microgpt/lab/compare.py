"""Two states side by side: how far each parameter is from the other's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from microgpt.lab.frames import Floats
from microgpt.lab.messages import Difference


def differences(a: Mapping[str, Floats], b: Mapping[str, Floats]) -> list[Difference]:
    """Each parameter that both have in the same shape: norms, norm of the difference, cosine of the angle."""
    found: list[Difference] = []
    for name, left in a.items():
        right = b.get(name)
        if right is None or right.shape != left.shape:
            continue
        x, y = left.astype(np.float64).ravel(), right.astype(np.float64).ravel()
        norm_a, norm_b = float(np.linalg.norm(x)), float(np.linalg.norm(y))
        scale = norm_a * norm_b
        cosine = float(x @ y) / scale if scale else None
        distance = float(np.linalg.norm(x - y))
        found.append(
            Difference(
                name=name, shape=list(left.shape), norm_a=norm_a, norm_b=norm_b, distance=distance, cosine=cosine
            )
        )
    return found
