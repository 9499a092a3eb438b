"""A run as the hub sees it: its folder, read again and again, whoever started it."""

from __future__ import annotations

import math
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from microgpt.errors import ModelError
from microgpt.hub.alerts import Alert, divergence, not_finite, overfitting, stall
from microgpt.hub.series import Series, duration, number
from microgpt.runs.find import Run
from microgpt.runs.folder import METRICS, RUN, SAMPLES, read_lines, read_rows, read_run

BUDGET_S = 0.06  # of reading at a time, so that keys are answered while a long run is read
SYSTEM = {
    "cpu_percent": ("system/cpu_percent", 1.0),
    "proc_rss_kb": ("system/process_mb", 1 / 1024),
    "sys_mem_used_mb": ("system/memory_used_mb", 1.0),
    "sys_mem_free_mb": ("system/memory_free_mb", 1.0),
}


class Watched:
    """What is known of a run; `look` reads what is new.

    Args:
        path: the run folder.

    Attributes:
        facts: run.json.
        series: values by metric.
        samples: lines of samples.jsonl.
        alerts: warnings by kind.
        limit: the step that a replay has come to; None shows all.
        reading: whether there was more to read than one look takes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts: dict[str, Any] = {}
        self.series: dict[str, Series] = {}
        self.samples: list[dict[str, Any]] = []
        self.alerts: dict[str, Alert] = {}
        self.limit: int | None = None
        self.reading = False
        self.status = ""
        self._told: set[str] = set()
        self._offsets = {METRICS: 0, SAMPLES: 0}
        self._system_offset = 0

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self.path.name

    def of(self, key: str) -> Series:
        """The values of a metric, perhaps none."""
        return self.series.get(key, Series())

    @property
    def step(self) -> int:
        """The last step that is known of."""
        if self.limit is not None:
            return self.limit
        return max((s.steps[-1] for s in self.series.values() if s.steps), default=0)

    @property
    def max_steps(self) -> int:
        """The length of the run, 0 where it is not known yet."""
        value = self.facts.get("max_steps", 0)
        return int(value) if isinstance(value, (int, float)) else 0

    def look(self) -> None:
        """Read what was written since the last look, for at most BUDGET_S."""
        with suppress(ModelError):
            self.facts = read_run(self.path)
        self.status = Run(self.path, self.facts).status
        ends = time.monotonic() + BUDGET_S
        self.reading = self._read_metrics(ends)
        self._read_system()
        for offset, line in read_lines(self.path / SAMPLES, self._offsets[SAMPLES]):
            self._offsets[SAMPLES] = offset
            if isinstance(line.get("samples"), list):
                self.samples.append(line)
        self._judge()

    def _read_metrics(self, ends: float) -> bool:
        for count, (offset, line) in enumerate(read_lines(self.path / METRICS, self._offsets[METRICS])):
            self._offsets[METRICS] = offset
            with suppress(KeyError, ValueError, TypeError, AttributeError, OverflowError):
                step = int(line["step"])
                for key, value in line["metrics"].items():
                    self.series.setdefault(str(key), Series()).add(step, float(value))
            if count % 64 == 63 and time.monotonic() > ends:
                return True
        return False

    def _read_system(self) -> None:
        for offset, row in read_rows(self.path / "system.csv", self._system_offset):
            self._system_offset = offset
            with suppress(KeyError, ValueError):
                step = int(row["step"])
                for column, (key, scale) in SYSTEM.items():
                    self.series.setdefault(key, Series()).add(step, float(row[column]) * scale)

    def _judge(self) -> None:
        loss = self.of("train/loss")
        found = [not_finite(loss), divergence(loss), overfitting(self.of("val/loss"), loss)]
        if self.status == "RUNNING":
            with suppress(OSError):
                silent = time.time() - (self.path / METRICS).stat().st_mtime
                found.append(stall(silent, self.of("perf/step_ms")))
        self.alerts = {alert.kind: alert for alert in found if alert is not None}

    def fresh_alerts(self) -> list[Alert]:
        """Warnings that were not handed out yet; of a run that has ended there are none."""
        if self.status != "RUNNING" or self.limit is not None:
            return []
        fresh = [a for a in self.alerts.values() if a.kind not in self._told]
        self._told.update(a.kind for a in fresh)
        return fresh

    def state(self, width: int) -> tuple[str, str]:
        """A line of at most so many columns, and its kind: run, done, bad or warn."""
        running = self.status == "RUNNING"
        mark = {"RUNNING": "▶", "FINISHED": "✓", "FAILED": "✗", "KILLED": "■"}.get(self.status, "·")
        steps = f"{self.step:,}" + (f"/{self.max_steps:,}" if self.max_steps else "")
        val, loss = self.of("val/loss").facts(self.limit), self.of("train/loss").facts(self.limit)
        parts = [f"{mark} {self.name}", steps]
        if loss.latest is not None:
            parts.append(f"loss {number(loss.latest)}")
        if val.latest is not None:
            parts.append(f"val {number(val.latest)}")
        left = self.of("progress/eta_s").facts().latest
        if running and left is not None and math.isfinite(left):
            parts.append(duration(left))
        if self.alerts and running:
            parts.insert(1, "! " + ", ".join(sorted(self.alerts)))
        while len(parts) > 2 and len(" ".join(parts)) > width:
            parts.pop()
        text = " ".join(parts)
        if len(text) > width:
            text = " ".join((mark, *parts[1:])) if len(parts) > 1 else mark
        kind = (
            "bad" if self.status == "FAILED" else "warn" if self.alerts and running else "run" if running else "done"
        )
        return text, kind

    def there(self) -> bool:
        """Whether the folder still is one."""
        return (self.path / RUN).exists()
