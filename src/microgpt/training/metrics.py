"""What a run writes down about itself: losses, rates, speed, the machine."""

from __future__ import annotations

import math
import os
import time
from typing import Any

import psutil
import torch

from microgpt.runs.folder import EVAL_COLUMNS, SYSTEM_COLUMNS, RunFolder, finite
from microgpt.runtime import now_iso, peak_memory_mb
from microgpt.training.lightning import pl
from microgpt.training.module import GPTModule
from microgpt.training.records import Clock

FLUSH_SECONDS = 0.5
SMOOTHING = 0.95


class Metrics(pl.Callback):
    """Appends to metrics.jsonl, eval.csv and system.csv.

    Args:
        folder: the run's.
        log_interval: steps between lines.
        system_interval: seconds between looks at the machine; 0 is never.
        flops_per_token: of the model, for MFU.
        peak_flops: what the device can do a second, for MFU.
    """

    def __init__(
        self,
        folder: RunFolder,
        log_interval: int,
        system_interval: float,
        flops_per_token: int,
        peak_flops: float,
    ) -> None:
        self.folder, self.log_interval, self.system_interval = folder, log_interval, system_interval
        self.flops_per_token, self.peak_flops = flops_per_token, peak_flops
        self.latest: dict[str, float] = {}
        self.smooth_loss = math.nan
        self._last_flush = self._last_system = time.monotonic()
        self._process = psutil.Process()

    def state_dict(self) -> dict[str, Any]:
        return {"smooth_loss": self.smooth_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.smooth_loss = float(state_dict["smooth_loss"])

    def flush(self, module: GPTModule) -> None:
        """Write the lines of the steps since the last flush; their tensors are read here, together."""
        records, module.records = module.records, []
        if not records:
            return
        losses, norms = torch.stack([torch.stack((r.loss, r.grad_norm)) for r in records]).t().tolist()
        speed = self._speed(module)
        for record, loss, norm in zip(records, losses, norms):
            keep = SMOOTHING if math.isfinite(self.smooth_loss) else 0.0
            self.smooth_loss = loss if keep == 0.0 else keep * self.smooth_loss + (1 - keep) * loss
            if record.step % self.log_interval and record is not records[-1]:
                continue
            line = {"train/loss": loss, "train/lr": record.lr, "train/grad_norm": norm}
            line["progress/tokens"] = float(record.tokens_done)
            if record.update_ratio is not None:
                line["train/update_ratio"] = float(record.update_ratio)
            if record is records[-1]:
                line.update(speed)
            self.folder.log_metrics(record.step, line)
            self.latest.update(line)
            self.folder.log(f"step {record.step}: loss {loss:.6f}, gradient norm {norm:.6f}", "debug")
        self._last_flush = time.monotonic()

    def _speed(self, module: GPTModule) -> dict[str, float]:
        clock, module.clock = module.clock, Clock()
        if not clock.count or clock.steps <= 0:
            return {}
        tokens = clock.tokens / clock.steps
        left = max(0, module.schedule.end - module.steps_done)
        memory = peak_memory_mb()
        if module.device.type == "cuda":
            memory = torch.cuda.max_memory_allocated() / 2**20
        return {
            "perf/tokens_per_s": tokens,
            "perf/steps_per_s": clock.count / clock.steps,
            "perf/step_ms": 1000 * clock.steps / clock.count,
            "perf/data_wait_pct": 100 * clock.data / clock.steps,
            "perf/mfu": 100 * tokens * self.flops_per_token / self.peak_flops if self.peak_flops else 0.0,
            "perf/mem_peak_mb": memory,
            "progress/eta_s": left * clock.steps / clock.count,
        }

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if now - self._last_flush >= FLUSH_SECONDS:
            self.flush(pl_module)
        if self.system_interval and now - self._last_system >= self.system_interval:
            self._last_system = now
            self._system(pl_module)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.flush(pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        module: GPTModule = pl_module
        gap = module.val["val/loss"] - self.smooth_loss
        line = {**module.val, "val/gap": gap, "perf/eval_pct": module.eval_pct}
        self.folder.log(f"step {module.steps_done}: " + ", ".join(f"{k} {v:.4f}" for k, v in line.items()))
        self.folder.log_metrics(module.steps_done, line)
        self.latest.update(line)
        stopper: Any = trainer.early_stopping_callback
        used = int(stopper.wait_count) if stopper else 0
        row = {
            "timestamp": now_iso(),
            "step": module.steps_done,
            "train_loss": finite(self.smooth_loss),
            "val_loss": finite(module.val["val/loss"]),
            "best_val": finite(module.best.loss),
            "generalization_gap": finite(gap),
            "improved": int(module.best.step == module.steps_done),
            "patience_used": used,
            "patience_max": module.config.trainer.patience,
            "learning_rate": module.lr(module.steps_done - 1),
            "perplexity": finite(module.val["val/ppl"]),
            "bits_per_byte": module.val.get("val/bpb", ""),
        }
        self.folder.log_row("eval.csv", EVAL_COLUMNS, row)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        self.flush(pl_module)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        self.flush(pl_module)

    def _system(self, module: GPTModule) -> None:
        memory = psutil.virtual_memory()
        mb = 2**20
        row = {
            "timestamp": now_iso(),
            "pid": os.getpid(),
            "cpu_percent": psutil.cpu_percent(),
            "proc_rss_kb": self._process.memory_info().rss // 1024,
            "sys_mem_used_mb": memory.used // mb,
            "sys_mem_free_mb": memory.available // mb,
            "sys_mem_total_mb": memory.total // mb,
            "step": module.steps_done,
            "step_total": module.schedule.end,
        }
        self.folder.log_row("system.csv", SYSTEM_COLUMNS, row)


def measured_peak_flops(device: str, precision: str) -> float:
    """Floating-point operations a second of a large matrix product on a device, measured in a blink."""
    size = 4096 if device == "cuda" else 1024
    kind = torch.bfloat16 if device == "cuda" or precision == "bf16" else torch.float32
    a = torch.randn(size, size, device=device, dtype=kind)
    best = 0.0
    for _ in range(6):  # the best of several: the first ones wake the threads up
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        torch.mm(a, a)
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 2 * size**3 / (time.perf_counter() - started))
    return best
