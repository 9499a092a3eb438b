"""A model in training, one optimizer step at a time, whose whole state can be taken out and put back.

The arithmetic is that of `training.module`: the same batches, loss, clipping, schedule and optimizer, so that a
session gives the numbers that `microgpt.train` gives. Nothing here draws from a generator that it does not restore.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from microgpt.data.batches import Batch
from microgpt.errors import ModelError
from microgpt.lab.messages import Unit
from microgpt.lab.recipe import VAL_ROWS, Recipe
from microgpt.model.gpt import GPT
from microgpt.training.optimizer import MuonAdamW, make_optimizer
from microgpt.training.schedule import make_schedule

VAL_TOKENS = 8192
State = dict[str, Tensor]
Part = tuple[Tensor, Tensor, Tensor, Tensor | None]


@dataclass
class Movement:
    """One update with all that it was made from; tensors by parameter name.

    Attributes:
        step: that it led to.
        before, after: weights.
        gradients: before clipping.
        clip: factor that clipping has put on all of them.
        moments: the optimizer's state before the update.
        rates: learning rate of each parameter.
    """

    step: int
    before: dict[str, Tensor]
    gradients: dict[str, Tensor]
    clip: float
    moments: dict[str, dict[str, Tensor]]
    rates: dict[str, float]
    after: dict[str, Tensor] = field(default_factory=dict[str, Tensor])


@dataclass(frozen=True)
class Stepped:
    """What one step gave: loss in nats, before the update; milliseconds of wall clock."""

    step: int
    loss: float
    learning_rate: float
    grad_norm: float
    step_ms: float
    tokens: int


def tensors_of(batch: Batch) -> Part:
    """inputs, targets, positions and segments of a batch."""
    arrays = (batch.inputs, batch.targets, batch.positions)
    inputs, targets, positions = (torch.from_numpy(a) for a in arrays)
    return inputs, targets, positions, None if batch.segments is None else torch.from_numpy(batch.segments)


def outputs_of(model: GPT, unit: Unit) -> tuple[str, slice]:
    """The matrix that reads a unit, and the columns of it that do.

    Raises:
        ModelError: the model has no such unit.
    """
    config = model.config
    width = config.n_embd // config.n_head if unit.kind == "head" else 1
    name = f"layer{unit.layer}.{'attn_wo' if unit.kind == 'head' else 'mlp_fc2'}"
    if unit.layer >= config.n_layer or (unit.index + 1) * width > model.get_parameter(name).shape[1]:
        raise ModelError(f"there is no {unit.kind} {unit.index} in layer {unit.layer}", "count from 0")
    return name, slice(unit.index * width, (unit.index + 1) * width)


@torch.no_grad()
def silence(model: GPT, units: Sequence[Unit]) -> None:
    """Switch units off: nothing reads them any more."""
    for unit in units:
        name, columns = outputs_of(model, unit)
        model.get_parameter(name)[:, columns] = 0


class Learner:
    """A model, its optimizer and the step that both stand at.

    Args:
        recipe: what to train, on what.
        off: units that stay switched off.
    """

    def __init__(self, recipe: Recipe, off: Sequence[Unit] = ()) -> None:
        config = recipe.config
        self.recipe, self.config, self.off = recipe, config, list(off)
        torch.manual_seed(config.seed)
        self.model = GPT(config.model, recipe.prepared.tokenizer.vocab_size)
        self.model.init_weights(config.seed)
        self.random = torch.get_rng_state()
        silence(self.model, self.off)
        self.optimizer: MuonAdamW = make_optimizer(self.model, config.optimizer)
        self.schedule = make_schedule(config.optimizer, config.trainer.max_steps or 1)
        rows, block = config.data.batch_size or 1, config.model.block_size
        self.batches = recipe.prepared.train_batches(config.data, block, rows, config.seed)
        self.most_rows = max(1, VAL_TOKENS // block)
        self.validation = recipe.prepared.val_batches(config.data, block, min(VAL_ROWS, max(1, self.most_rows // 2)))
        self.step = self.tokens = self.bad_steps = 0
        self.movement: Movement | None = None
        self._names: dict[Tensor, str] = {p: n for n, p in self.model.named_parameters()}

    @property
    def end(self) -> int:
        """The last step."""
        return self.schedule.end

    def rate(self, step: int) -> float:
        """AdamW's learning rate in the update from `step` to `step` + 1."""
        return (self.config.optimizer.learning_rate or 0.0) * self.schedule.factor(step)

    def micro_batches(self, step: int) -> list[Batch]:
        """What the update from `step` to `step` + 1 learns from."""
        count = self.config.trainer.accumulate
        return [self.batches.micro_batch(step, micro, count) for micro in range(count)]

    def advance(self, watched: bool = False) -> Stepped:
        """Make one optimizer step; a watched one leaves its `movement` behind."""
        started = time.perf_counter()
        dropping = self.config.model.dropout > 0
        if dropping:
            torch.set_rng_state(self.random)
        parts = self.micro_batches(self.step)
        tokens = sum(b.target_count for b in parts)
        total = torch.zeros(())
        for batch in parts:
            loss = self.model.loss(*tensors_of(batch)) / max(1, tokens)
            loss.backward()
            total += loss.detach()
        self._silence_gradients()
        grads = [p.grad for p in self._names if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))
        loss, size = torch.stack((total, norm)).tolist()
        if math.isfinite(loss) and math.isfinite(size):
            self._update(grads, norm, watched)
        else:
            self.bad_steps += 1
        rate = self.rate(self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += tokens
        if dropping:
            self.random = torch.get_rng_state()
        return Stepped(self.step, loss, rate, size, 1000 * (time.perf_counter() - started), self.tokens)

    def _silence_gradients(self) -> None:
        for unit in self.off:
            name, columns = outputs_of(self.model, unit)
            gradient = self.model.get_parameter(name).grad
            if gradient is not None:
                gradient[:, columns] = 0

    def _update(self, grads: list[Tensor], norm: Tensor, watched: bool) -> None:
        limit = self.config.optimizer.grad_clip
        factor = self.schedule.factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        clip = (limit / (norm + 1e-6)).clamp(max=1.0) if limit else None
        if watched:
            self.movement = self._moving(1.0 if clip is None else float(clip))
        if clip is not None:
            torch._foreach_mul_(grads, clip)
        self.optimizer.step()
        silence(self.model, self.off)
        if watched and self.movement is not None:
            self.movement.after = self.weights()

    def _moving(self, clip: float) -> Movement:
        groups = self.optimizer.param_groups
        rates = {self._names[p]: float(group["lr"]) for group in groups for p in group["params"]}
        moments = {
            self._names[p]: {k: t.clone() for k, t in entries.items()} for p, entries in self.optimizer.state.items()
        }
        gradients = {n: p.grad.clone() for n, p in self.model.named_parameters() if p.grad is not None}
        return Movement(self.step + 1, self.weights(), gradients, clip, moments, rates)

    def weights(self) -> dict[str, Tensor]:
        """A copy of all parameters by name."""
        return {n: p.detach().clone() for n, p in self.model.named_parameters()}

    @torch.no_grad()
    def loss(self, model: GPT | None = None, rows: int = VAL_ROWS) -> tuple[float, int]:
        """Mean loss in nats of the first rows of the validation set, and how many targets that is.

        At most 8,192 tokens are scored, so that the page gets its answer; whole batches always.
        """
        chosen = self.model if model is None else model
        was = chosen.training
        chosen.eval()
        nats = torch.zeros((), dtype=torch.float64)
        targets = 0
        for part in self.validation:
            for number in range(min(part.per_epoch, -(-min(rows, self.most_rows) // part.batch_size))):
                batch = part.fixed(number)
                nats += chosen.loss(*tensors_of(batch)).double()
                targets += batch.target_count
        chosen.train(was)
        return float(nats) / max(1, targets), targets

    # ---- state

    def state(self) -> State:
        """Everything that the next step depends on; the tensors are copies."""
        found = {f"weights.{n}": t for n, t in self.weights().items()}
        places = [p for group in self.optimizer.param_groups for p in group["params"]]
        for index, p in enumerate(places):
            for leaf, tensor in self.optimizer.state.get(p, {}).items():
                found[f"optimizer.{index}.{leaf}"] = tensor.detach().clone()
        counts = torch.tensor([self.step, self.tokens, self.bad_steps])
        return {**found, "rng.torch": self.random.clone(), "counts": counts}

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Go back to a state.

        Raises:
            ModelError: it is another model's.
        """
        try:
            for name, p in self.model.named_parameters():
                p.copy_(state[f"weights.{name}"])
            self.optimizer.state.clear()
            for index, p in enumerate(p for group in self.optimizer.param_groups for p in group["params"]):
                prefix = f"optimizer.{index}."
                entries = {k.removeprefix(prefix): t.clone() for k, t in state.items() if k.startswith(prefix)}
                if entries:
                    self.optimizer.state[p] = entries
            self.step, self.tokens, self.bad_steps = (int(v) for v in state["counts"])
            self.random = state["rng.torch"].clone()
        except (KeyError, RuntimeError, ValueError) as error:
            raise ModelError("the recorded state is of another model", "look at a step of this session") from error
        self.movement = None
        silence(self.model, self.off)
