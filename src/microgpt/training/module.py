"""The LightningModule: one optimizer step, one validation batch, and the state that makes both resumable.

Optimization is manual: clipping, accumulation and skipping are ours, and one `training_step` runs a span of
optimizer steps, because Lightning's own work a call (about a millisecond) outweighs a tiny model's arithmetic.
A step is always an optimizer step; spans end where a validation, a checkpoint or the run ends, so nobody sees them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from microgpt.config.schema import TrainConfig
from microgpt.data.batches import Ahead, Batch, Batches
from microgpt.data.mixture import MixedBatches
from microgpt.data.order import key_of
from microgpt.errors import DivergedError, is_out_of_memory
from microgpt.model.gpt import GPT
from microgpt.training.lightning import pl
from microgpt.training.memory import smaller
from microgpt.training.optimizer import MuonAdamW, check_state, make_optimizer
from microgpt.training.profile import Phases, phase
from microgpt.training.ranks import Ranks, divided
from microgpt.training.records import BestLoss, Clock, StepRecord
from microgpt.training.schedule import Schedule
from microgpt.training.shards import fill, local, part_of, shard, whole
from microgpt.training.spans import Span
from microgpt.training.spikes import Spikes

UPDATE_RATIO_EVERY = 25
PREFETCHED = 2  # steps whose batches are made ahead for a GPU


class GPTModule(pl.LightningModule):
    """A GPT in training.

    Args:
        model: the network.
        config: the run's config with every auto resolved.
        batches: where training batches come from.
        schedule: learning rate by step.
        token_bytes: bytes of text a token id stands for, int32 [vocab_size], or None where unknown.
        precision: `f32`, `bf16` or `f16`.
        loss: computes the summed loss of a batch; the model's own, or a compiled one.
        should_stop: asked between steps; a true answer ends the span early.
        on_note: told of whatever a user should know: skipped updates, spikes, a smaller micro-batch.
        ranks: this process and its fellows, where there are several.
        plain: with fsdp, a copy of the network that is not divided, for sampling.
    """

    def __init__(
        self,
        model: GPT,
        config: TrainConfig,
        batches: Batches | MixedBatches,
        schedule: Schedule,
        token_bytes: Tensor | None,
        precision: str = "f32",
        loss: Callable[..., Tensor] | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        on_note: Callable[[str], None] = lambda what: None,
        ranks: Ranks | None = None,
        plain: GPT | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model, self.config, self.batches, self.schedule = model, config, batches, schedule
        self.token_bytes, self.precision = token_bytes, precision
        self.should_stop, self.on_note = should_stop, on_note
        self.loss_of: Callable[..., Tensor] = loss or model.loss
        self.profiler: Phases | None = None
        self.began, self.began_at = False, 0.0
        self.steps_done = 0
        self.tokens_done = 0
        self.bad_steps = 0
        self.ranks = ranks
        self._plain: list[GPT] = [plain] if plain is not None else []  # in a list it is no part of this module
        self._micro_batch = config.data.batch_size or 1, config.trainer.accumulate
        self.batches.batch_size, self.accumulate = self._shared(*self._micro_batch)
        self.spikes = Spikes()
        self.validated_at = -1
        self.best = BestLoss()
        self.elapsed = 0.0
        self.evaluating = 0.0
        self.val: dict[str, float] = {}
        self.records: list[StepRecord] = []
        self.clock = Clock()
        self.average: list[Tensor] | None = None
        self._weights: list[Tensor] | None = None
        self._ahead = Ahead(self._made, config.data.workers)
        self._restored_rng: dict[str, Tensor] = {}
        self._sums: Tensor | None = None
        self._validation_began = 0.0
        self._scaler = torch.amp.GradScaler(enabled=precision == "f16")
        if config.optimizer.ema_decay:
            self.average = [p.detach().clone() for p in model.parameters()]

    def configure_model(self) -> None:
        if not self._plain:
            return
        mesh: Any = self.device_mesh
        shard(self.model, mesh["data_parallel"])
        self.loss_of = self.model.loss  # it enters through FSDP's hooks now
        if self.average is not None:
            self.average = [w.clone() for w in self.weights()]

    def _shared(self, rows: int, accumulate: int) -> tuple[int, int]:
        """Rows and micro-batches of this process, of those of a step."""
        return divided(rows, accumulate, 1 if self.ranks is None else self.ranks.world)

    def weights(self) -> list[Tensor]:
        """The numbers of the parameters that this process has: all, or its parts of them."""
        return local([p.detach() for p in self.model.parameters()])

    def whole_model(self) -> GPT:
        """The network with all its weights; with fsdp every process must ask for it."""
        if not self._plain:
            return self.model
        fill(self._plain[0], self.model)
        return self._plain[0]

    def configure_optimizers(self) -> MuonAdamW:
        return make_optimizer(self.model, self.config.optimizer)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch  # `on_device` moves what a step needs; Lightning would walk through every field

    def autocast(self) -> Any:
        """The number format of the forward pass."""
        if self.precision == "f32":
            return nullcontext()
        kind = torch.bfloat16 if self.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=kind)

    def on_device(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """inputs, targets, positions and segments of a batch as tensors on the module's device."""
        arrays = (batch.inputs, batch.targets, batch.positions)
        inputs, targets, positions = (self._moved(a) for a in arrays)
        return inputs, targets, positions, None if batch.segments is None else self._moved(batch.segments)

    def _moved(self, array: Any) -> Tensor:
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)  # only pinned memory is copied beside the work

    # ---- training

    def on_train_start(self) -> None:
        # Lightning counts optimizer steps by wrapping step(); we step inside spans and set its counter ourselves.
        self._count_steps(self.steps_done)
        if "torch" in self._restored_rng:
            torch.set_rng_state(self._restored_rng["torch"])
        if "cuda" in self._restored_rng and self.device.type == "cuda":
            torch.cuda.set_rng_state(self._restored_rng["cuda"])
        self.began, self.began_at = True, time.monotonic()
        if self.device.type == "cuda" and not self.config.data.workers:
            self._ahead = Ahead(self._made, PREFETCHED)  # made while the GPU works; a CPU has no core to spare
        interval = self.config.trainer.eval_interval or 1
        if self.steps_done and self.steps_done % interval == 0 and self.validated_at != self.steps_done:
            # the run was stopped between a step and the validation that belongs to it: run that first
            self.trainer.validating = True
            self.trainer.fit_loop.epoch_loop.val_loop.run()
            self.trainer.training = True

    def _count_steps(self, steps: int) -> None:
        progress = self.trainer.fit_loop.epoch_loop.manual_optimization.optim_step_progress
        progress.total.ready = progress.total.completed = steps

    def training_step(self, batch: Span) -> None:
        started = time.perf_counter()
        optimizer: Any = self.optimizers(use_pl_optimizer=False)
        for step in range(batch.start, batch.stop):
            self._step(step, optimizer)
            if self.should_stop():
                break
        self._count_steps(self.steps_done)
        spent = time.perf_counter() - started
        self.clock.steps += spent
        self.elapsed += spent

    def _made(self, step: int) -> list[Batch]:
        count, rank, world = self.accumulate, self.global_rank, self.trainer.world_size
        return [self.batches.micro_batch(step, micro, count, rank, world) for micro in range(count)]

    def _micro_batches(self, step: int) -> list[Batch]:
        started = time.perf_counter()
        with phase(self.profiler, "data"):
            found = self._ahead.take(step)
        self.clock.data += time.perf_counter() - started
        return found

    def _gradients(self, step: int, optimizer: MuonAdamW) -> tuple[list[Batch], int, Tensor]:
        """The micro-batches of a step, their targets and summed loss; in smaller ones where memory runs out."""
        while True:
            try:
                return self._accumulated(step)
            except (MemoryError, RuntimeError) as error:
                fitting = smaller(self.batches.batch_size, self.accumulate)
                if fitting is None or not self.config.trainer.auto_micro_batch or not is_out_of_memory(error):
                    raise
                reason = (str(error).splitlines() or ["out of memory"])[0][:120]
            # out here, where the exception no longer holds what the failed attempt has allocated
            optimizer.zero_grad(set_to_none=True)
            self.batches.batch_size, self.accumulate = self._micro_batch = fitting
            self._ahead.forget()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            what = f"{self.batches.batch_size} rows, accumulated {self.accumulate} times"
            self._tell(
                f"out of memory at step {step + 1}, which is tried again in micro-batches of {what} ({reason})"
            )

    def _accumulated(self, step: int) -> tuple[list[Batch], int, Tensor]:
        micro_batches = self._micro_batches(step)
        tokens = sum(b.target_count for b in micro_batches)
        if self.ranks is not None:
            return self._accumulated_together(self.ranks, step, micro_batches, tokens)
        total = torch.zeros((), device=self.device)
        for batch in micro_batches:
            with phase(self.profiler, "data"):
                inputs, targets, positions, segments = self.on_device(batch)
            with phase(self.profiler, "forward"), self.autocast():
                loss = self.loss_of(inputs, targets, positions, segments) / max(1, tokens)
            with phase(self.profiler, "backward"):
                self._scaler.scale(loss).backward()
            total += loss.detach()
        return micro_batches, tokens, total

    def _accumulated_together(
        self, ranks: Ranks, step: int, micro_batches: list[Batch], tokens: int
    ) -> tuple[list[Batch], int, Tensor]:
        """As `_accumulated`, for the rows of all processes: their targets and summed loss, and its gradients."""
        tokens = ranks.agree(tokens)
        if self.config.model.dropout:  # a function of step and process, so that no state of theirs must be kept
            torch.manual_seed(key_of(self.config.seed, step, ranks.rank, 5) >> 1)
        total = torch.zeros((), device=self.device)
        for number, batch in enumerate(micro_batches):
            with phase(self.profiler, "data"):
                inputs, targets, positions, segments = self.on_device(batch)
            with phase(self.profiler, "forward"), self.autocast():
                loss = self.loss_of(inputs, targets, positions, segments) / max(1, tokens)
            with phase(self.profiler, "backward"), self._reducing(number == len(micro_batches) - 1):
                # what is reduced is the mean of the processes' gradients, and we want their sum
                self.manual_backward(self._scaler.scale(loss * ranks.world))
            total += loss.detach()
        return micro_batches, tokens, ranks.sum(total)

    @contextmanager
    def _reducing(self, last: bool) -> Generator[None]:
        """Gradients go to the other processes with the last micro-batch of a step only."""
        wrapped: Any = self.trainer.strategy.model
        if self._plain:
            network: Any = self.model
            network.set_requires_gradient_sync(last)
            yield
        elif last:
            yield
        else:
            with wrapped.no_sync():
                yield

    def _step(self, step: int, optimizer: MuonAdamW) -> None:
        micro_batches, tokens, total = self._gradients(step, optimizer)
        with phase(self.profiler, "optimizer"):
            self._conclude(step, optimizer, micro_batches, tokens, total)
        optimizer.zero_grad(set_to_none=True)
        self.steps_done = step + 1
        self.clock.count += 1
        self.clock.tokens += tokens

    def _conclude(
        self, step: int, optimizer: MuonAdamW, micro_batches: list[Batch], tokens: int, total: Tensor
    ) -> None:
        """Guard against what is not finite and against spikes, update, and note what the step left."""
        if self._scaler.is_enabled():
            self._scaler.unscale_(optimizer)
        grads = local([p.grad for p in self.model.parameters() if p.grad is not None])
        norm = self._norm(grads)
        self.tokens_done += tokens
        loss, size = torch.stack((total, norm)).tolist()  # one look at the device a step, for both guards
        if math.isfinite(loss) and math.isfinite(size):
            ratio = (
                None
                if self._is_skipped_spike(step, loss, micro_batches)
                else self._update(step, optimizer, grads, norm)
            )
            self.records.append(StepRecord(step + 1, total, norm, self.lr(step), self.tokens_done, ratio))
        elif self._scaler.is_enabled() and math.isfinite(loss):
            self._scaler.step(optimizer)  # f16 overflow: it skips the update and lowers the scale
            self._scaler.update()
        else:
            self._skip_bad(step, loss, size, micro_batches)

    def _norm(self, tensors: list[Tensor]) -> Tensor:
        """The norm of all numbers of some tensors, of which this process may have parts."""
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(tensors)))
        if self.ranks is not None and self._plain:
            return self.ranks.sum(norm * norm).sqrt()
        return norm

    def _update(self, step: int, optimizer: MuonAdamW, grads: list[Tensor], norm: Tensor) -> Tensor | None:
        """Clip, step, average; returns the size of the update over that of the weights, now and then."""
        limit = self.config.optimizer.grad_clip
        if limit:
            torch._foreach_mul_(grads, (limit / (norm + 1e-6)).clamp(max=1.0))
        factor = self.schedule.factor(step)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        looked_at = step % UPDATE_RATIO_EVERY == 0
        weights = self.weights()
        before = [w.clone() for w in weights] if looked_at else []
        if self._scaler.is_enabled():
            self._scaler.step(optimizer)
            self._scaler.update()
        else:
            optimizer.step()
        if self.average is not None:
            torch._foreach_lerp_(self.average, weights, 1 - self.config.optimizer.ema_decay)
        if not looked_at:
            return None
        return self._norm(list(torch._foreach_sub(before, weights))) / self._norm(weights)

    def _tell(self, what: str) -> None:
        self.print(f"note: {what}")
        self.on_note(what)

    def _documents(self, micro_batches: list[Batch]) -> str:
        documents = sorted({d for b in micro_batches for d in self.batches.documents_of(b)})
        return "documents " + ", ".join(documents[:10]) + (", ..." if len(documents) > 10 else "")

    def _is_skipped_spike(self, step: int, loss: float, micro_batches: list[Batch]) -> bool:
        """Whether the loss is a spike, which is told, and its update is to be left out."""
        limit = self.spikes.limit()
        if not self.spikes.is_spike(loss):
            return False
        skipped = self.config.trainer.skip_spikes
        end = "; its update is left out" if skipped else ""
        what = f"loss {loss:g} is above {limit:g}, the mean and six deviations of the 128 steps before"
        self._tell(f"spike at step {step + 1}: {what}; {self._documents(micro_batches)}{end}")
        if skipped and self._scaler.is_enabled():
            self._scaler.update()
        return skipped

    def _skip_bad(self, step: int, loss: float, norm: float, micro_batches: list[Batch]) -> None:
        self.bad_steps += 1
        what = f"step {step + 1}: loss {loss:g}, gradient norm {norm:g}; {self._documents(micro_batches)}"
        self._tell(f"update skipped at {what}")
        if self.bad_steps > self.config.trainer.max_bad_steps:
            raise DivergedError(
                f"training diverged: {self.bad_steps} updates were not finite, the last at {what}",
                "lower optimizer.learning_rate, and go on from the last good checkpoint with resume=latest",
            )

    def lr(self, step: int) -> float:
        """The learning rate of a step (AdamW's; Muon's follows the same shape)."""
        return (self.config.optimizer.learning_rate or 0.0) * self.schedule.factor(step)

    # ---- validation

    def use_average(self) -> None:
        """Put the averaged weights in place of the trained ones, until `use_weights`."""
        if self.average is not None and self._weights is None:
            self._weights = [w.clone() for w in self.weights()]
            for weight, averaged in zip(self.weights(), self.average):
                weight.copy_(averaged)

    def use_weights(self) -> None:
        """Put the trained weights back."""
        if self._weights is not None:
            for weight, trained in zip(self.weights(), self._weights):
                weight.copy_(trained)
            self._weights = None

    def on_validation_epoch_start(self) -> None:
        self._validation_began = time.perf_counter()
        if self.profiler is not None:
            self.profiler.start("evaluation")
        self.use_average()
        self._sums = torch.zeros(3, dtype=torch.float64)  # nats, targets, bytes

    def validation_step(self, batch: Batch) -> None:
        inputs, targets, positions, segments = self.on_device(batch)
        with self.autocast():
            nats = self.model.loss(inputs, targets, positions, segments)
        counted = targets[targets >= 0]
        size = 0 if self.token_bytes is None else int(self.token_bytes[counted.cpu()].sum())
        assert self._sums is not None
        self._sums += torch.tensor([float(nats), counted.numel(), size], dtype=torch.float64)

    def on_validation_epoch_end(self) -> None:
        assert self._sums is not None
        if self.ranks is not None:
            self._sums = self.ranks.sum(self._sums)
        nats, targets, size = self._sums.tolist()
        loss = nats / max(1.0, targets)
        self.validated_at = self.steps_done
        self.val = {"val/loss": loss, "val/ppl": float(torch.tensor(loss).exp())}
        if size:
            self.val["val/bpb"] = nats / size / 0.6931471805599453
        if loss < self.best.loss:
            self.best = BestLoss(loss, self.val.get("val/bpb", float("inf")), self.steps_done)
        self.evaluating += time.perf_counter() - self._validation_began
        if self.profiler is not None:
            self.profiler.stop("evaluation")
        self.log("val/loss", torch.tensor(loss, dtype=torch.float64), logger=False)

    def on_validation_end(self) -> None:
        self.use_weights()

    @property
    def eval_pct(self) -> float:
        """Percent of the time so far that went into validations."""
        return 100 * self.evaluating / max(1e-9, self.elapsed + self.evaluating)

    # ---- state

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        rng = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state()
        checkpoint["rng"] = rng
        if self.average is not None:
            named = zip(self.model.named_parameters(), self.average)
            checkpoint["average"] = {name: whole(average, p) for (name, p), average in named}
        checkpoint["progress"] = {
            "step": self.steps_done,
            "tokens": self.tokens_done,
            "bad_steps": self.bad_steps,
            "spikes": self.spikes.to_json(),
            "micro_batch": {"rows": self._micro_batch[0], "accumulate": self._micro_batch[1]},
            "validated_at": self.validated_at,
            "best": {"loss": self.best.loss, "bpb": self.best.bpb, "step": self.best.step},
            "elapsed_s": self.elapsed,
            "evaluating_s": self.evaluating,
            "schedule": self.schedule.to_json(),
            "val": self.val,
            "scaler": self._scaler.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        check_state(make_optimizer(self.model, self.config.optimizer), checkpoint["optimizer_states"][0])
        state = checkpoint["progress"]
        self.steps_done, self.tokens_done = int(state["step"]), int(state["tokens"])
        self.bad_steps, self.validated_at = int(state["bad_steps"]), int(state["validated_at"])
        self.best, self.elapsed = BestLoss(**state["best"]), float(state["elapsed_s"])
        self.val, self.evaluating = dict(state["val"]), float(state.get("evaluating_s", 0.0))
        if "spikes" in state:  # not in checkpoints of before 0.1.0
            self.spikes.restore(state["spikes"])
            micro_batch = state["micro_batch"]  # smaller than configured where memory has run out
            self._micro_batch = int(micro_batch["rows"]), int(micro_batch["accumulate"])
            self.batches.batch_size, self.accumulate = self._shared(*self._micro_batch)
        if self._scaler.is_enabled():
            self._scaler.load_state_dict(state["scaler"])
        if self.average is not None:
            averages = checkpoint["average"]
            self.average = [part_of(averages[n].to(self.device), p) for n, p in self.model.named_parameters()]
        self._restored_rng = checkpoint["rng"]
