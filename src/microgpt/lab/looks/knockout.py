"""What each head or neuron is worth: the validation loss without it."""

from __future__ import annotations

import torch

from microgpt.errors import UsageError
from microgpt.lab.learner import outputs_of
from microgpt.lab.looks.scene import Scene, Tensors
from microgpt.lab.messages import Unit
from microgpt.lab.panels import KnockoutData, KnockoutParams
from microgpt.model.shapes import mlp_width

MOST_NEURONS = 1024


@torch.no_grad()
def loss_without(scene: Scene, unit: Unit, rows: int) -> float:
    """The validation loss with one more unit switched off, in nats."""
    name, columns = outputs_of(scene.model, unit)
    part = scene.model.get_parameter(name)[:, columns]
    kept = part.clone()
    part.zero_()
    found, _ = scene.learner.loss(scene.model, rows)
    part.copy_(kept)
    return found


def knockout(scene: Scene, whole: Scene, params: KnockoutParams) -> tuple[KnockoutData, Tensors]:
    """A map of layers by heads, or of one layer's neurons.

    Args:
        scene: with `params.off` switched off.
        whole: with nothing switched off.
        params: what to try.
    """
    config = scene.model.config
    base, targets = scene.learner.loss(scene.model, params.rows)
    before = base if scene is whole else whole.learner.loss(whole.model, params.rows)[0]
    if params.kind == "head":
        units = [
            Unit(layer=layer, kind="head", index=h) for layer in range(config.n_layer) for h in range(config.n_head)
        ]
        shape = (config.n_layer, config.n_head)
    else:
        width = mlp_width(config)
        if params.layer >= config.n_layer or width > MOST_NEURONS:
            raise UsageError(
                f"there is no such map of layer {params.layer}", f"up to {MOST_NEURONS} neurons are tried"
            )
        units = [Unit(layer=params.layer, kind="neuron", index=i) for i in range(width)]
        shape = (width,)
    effects = torch.tensor([loss_without(scene, unit, params.rows) - base for unit in units]).view(shape)
    return KnockoutData(kind=params.kind, loss=base, whole=before, targets=targets), {"effect": effects}
