"""Lightning's strategies for several processes: DDP, and FSDP2 with states that are whole when they are written."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from microgpt.model.gpt import GPT
from microgpt.training.lightning import DDPStrategy, ModelParallelStrategy, Strategy
from microgpt.training.ranks import Ranks
from microgpt.training.shards import part_of, whole


def strategy_of(ranks: Ranks, sharded: bool) -> Strategy:
    """The strategy of `device=ddp`, or of `fsdp`."""
    timeout = timedelta(seconds=ranks.timeout)
    if sharded:
        return Sharded(ranks.world, 1, save_distributed_checkpoint=False, timeout=timeout)
    # no buffer of the model ever changes; gradients live where they are reduced
    return DDPStrategy(timeout=timeout, broadcast_buffers=False, gradient_as_bucket_view=True)


class Sharded(ModelParallelStrategy):
    """FSDP2 whose checkpoints are those of one process, written by `FolderCheckpointIO`.

    Every process takes part in gathering a state and gets all of it, in its main memory; the first one writes.
    """

    @property
    def lightning_restore_optimizer(self) -> bool:
        return True

    def _network(self) -> GPT:
        module: Any = self.lightning_module
        return module.model

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return {f"model.{name}": whole(p).cpu() for name, p in self._network().named_parameters()}

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        inner: Any = getattr(optimizer, "_optimizer", optimizer)
        state = inner.state_dict()
        params = [p for group in inner.param_groups for p in group["params"]]
        gathered = {
            index: {name: whole(t, params[index]).cpu() for name, t in entries.items()}
            for index, entries in state["state"].items()
        }
        return {"state": gathered, "param_groups": state["param_groups"]}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None) -> None:
        if self.is_global_zero:
            self.checkpoint_io.save_checkpoint(checkpoint, filepath)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        return self.checkpoint_io.load_checkpoint(checkpoint_path)

    @torch.no_grad()
    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        for name, p in self._network().named_parameters():
            local: Any = p
            local.to_local().copy_(part_of(checkpoint["state_dict"][f"model.{name}"], p))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, saved in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            params: list[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
            parts = {
                index: {name: part_of(t, params[index]) for name, t in entries.items()}
                for index, entries in saved["state"].items()
            }
            optimizer.load_state_dict({"state": parts, "param_groups": saved["param_groups"]})
