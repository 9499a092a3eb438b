"""Tensors that FSDP2 has divided over the processes: their parts here, and the whole of them.

FSDP2 (`torch.distributed.fsdp.fully_shard`; Zhao et al. 2023, arXiv:2304.11277, is its first version) makes every
parameter a DTensor divided along its first dimension. What is computed element by element is computed on the parts.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from microgpt.model.gpt import GPT


def shard(model: GPT, mesh: Any) -> None:
    """Divide a model's parameters, a layer at a time, so that no more than a layer is whole at once.

    Args:
        model: in place.
        mesh: the processes, one-dimensional.
    """
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    for layer in model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh, reshard_after_forward=True)
    # its own call is how a training step and a validation enter the model
    register_fsdp_forward_method(model, "loss")


def is_shard(tensor: Tensor) -> bool:
    """Whether a tensor is divided; without importing torch.distributed where nothing is."""
    return hasattr(tensor, "to_local")


def local(tensors: list[Tensor]) -> list[Tensor]:
    """The parts of tensors that this process has; those that are not divided as they are."""
    found: list[Any] = tensors
    return [t.to_local() if is_shard(t) else t for t in found]


def whole(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """All of a tensor, in every process; all must call it.

    Args:
        tensor: divided, or a part of a tensor that is divided as `like`, or not divided.
        like: the parameter that the tensor belongs to.
    """
    given: Any = tensor
    if is_shard(tensor):
        return given.detach().full_tensor()
    if like is None or not is_shard(like) or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import DTensor

    spec: Any = like
    shape = spec.shape, spec.stride()
    made: Any = DTensor.from_local(
        tensor, spec.device_mesh, spec.placements, run_check=False, shape=shape[0], stride=shape[1]
    )
    return made.full_tensor()


def part_of(tensor: Tensor, like: Tensor) -> Tensor:
    """This process's part of a tensor that all have whole, divided as the parameter that it belongs to."""
    if not is_shard(like) or tensor.dim() == 0:
        return tensor
    from torch.distributed.tensor import distribute_tensor

    spec: Any = like
    there = tensor.to(spec.device)
    divided: Any = distribute_tensor(there, spec.device_mesh, spec.placements, src_data_rank=None)
    return divided.to_local()


def fill(model: nn.Module, sharded: nn.Module) -> None:
    """Put the whole weights of a divided model into one that is not; all processes must call it."""
    mine = dict(model.named_parameters())
    for name, parameter in sharded.named_parameters():
        mine[name].data.copy_(whole(parameter))
