"""`python -m microgpt.tracking.feeder RUN_FOLDER`: tail a run folder into MLflow until the run has ended.

It can be started again at any time, on a run that goes on or has ended: what MLflow has is skipped by (key, step).
Whatever happens to the store costs the training nothing; what it has missed is sent when it is back, also to a new
one where it was deleted.
"""

from __future__ import annotations

import getpass
import os
import sys
import time
import traceback
from contextlib import suppress
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.errors import ModelError, UsageError, redacted
from microgpt.runs.curves import PICTURE, loss_figure
from microgpt.runs.find import MLFLOW
from microgpt.runs.folder import (
    FINISHED,
    KILLED,
    METRICS,
    PRUNED,
    RUNNING,
    SAMPLES,
    read_config,
    read_lines,
    read_rows,
    read_run,
)
from microgpt.runtime import quiet_libraries
from microgpt.tracking.points import Point, Points
from microgpt.tracking.stale import FOLDER, LOCK, mend, owner_tags, send_rest
from microgpt.tracking.start import PARENT
from microgpt.tracking.store import MAX_METRICS, StoreFile, experiment_id, log_params, open_client, settings

ARTIFACTS = (
    *("eval.csv", "profile.csv", "run.json", "metrics.jsonl"),
    *("find_lr.json", "find_lr.png", "find_batch_size.json"),
)
POLL_SECONDS = 1.0
#: of one round
MAX_POINTS = 10_000
RETRY_SECONDS = 60.0
#: as nice counts: as we were started, and how far behind while steps are made
GIVEN, BEHIND = os.getpriority(os.PRIO_PROCESS, 0), 10
SYSTEM_NAMES = {
    "cpu_percent": "system/cpu_utilization_percentage",
    "proc_rss_kb": "system/process_memory_kb",
    "sys_mem_used_mb": "system/system_memory_usage_megabytes",
    "sys_mem_free_mb": "system/system_memory_free_megabytes",
}


def milliseconds(iso: str) -> int:
    """An ISO time as MLflow wants it."""
    with suppress(ValueError):
        return int(datetime.strptime(iso, "%Y-%m-%dT%H:%M:%S%z").timestamp() * 1000)
    return int(time.time() * 1000)


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat.update(flattened(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value})
    return flat


def load_libraries() -> None:
    """Import what is needed, which takes seconds: now, while the training process imports what it needs.

    Later it would take a core from its steps, or hold its end.
    """
    for name in ("matplotlib.figure", "mlflow.store.tracking.sqlalchemy_store", "pandas"):
        import_module(name)


def give_way(behind: bool) -> None:
    """Run only where the training's steps leave a core idle, or like everybody again, as far as the system lets us.

    A round that takes a core from one of two threads at a step holds both. Linux shares out among sessions before it
    looks at processes, so the session is told as well.
    """
    nice = BEHIND if behind else 0
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, min(GIVEN + nice, 19))
    if os.getsid(0) == os.getpid():  # not that of the terminal in which somebody sends a run by hand
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(nice))


class RunFeeder:
    """Carries one run folder to MLflow.

    Args:
        folder: the run's.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.given = settings()
        self.client: Any = None
        self.run_id = ""
        self.offset = 0
        self.system_offset, self.system_rows = 0, 0
        self.stored: dict[str, set[int]] = {}
        self.file: StoreFile | None = None
        self.points: Points | None = None
        self.described = True  # as are the runs of earlier versions, whose note does not say

    def status(self) -> str:
        """How the run stands; one that says RUNNING but holds no lock was killed."""
        status = str(read_run(self.folder).get("status", RUNNING))
        if status == RUNNING and not files.is_locked(self.folder):
            status = str(read_run(self.folder).get("status", RUNNING))  # it may have ended between the two looks
            return KILLED if status == RUNNING else status
        return status

    def is_open(self) -> bool:
        """Whether MLflow has this run as RUNNING."""
        known = str(files.read_json(self.folder / MLFLOW)["run_id"])
        return open_client(self.given["uri"]).get_run(known).info.status == RUNNING

    def open(self) -> None:
        """Find or make the MLflow run."""
        from mlflow.exceptions import MlflowException

        self.client = open_client(self.given["uri"])
        self.file = self.file or StoreFile(self.given["uri"])
        self.points = self.points or (Points(self.file.path) if self.file.path else None)
        note = self.folder / MLFLOW
        with suppress(OSError, ValueError, KeyError, MlflowException):
            told = files.read_json(note)
            known = str(told["run_id"])
            self.client.get_run(known)
            self.run_id, self.described = known, bool(told.get("described", True))
        if self.run_id:
            self._read_stored()
            self.client.update_run(self.run_id, status=RUNNING)
            return
        facts = read_run(self.folder)
        git = facts.get("git", {})
        tags = {
            "mlflow.source.name": str(facts.get("command", "microgpt")),
            "mlflow.source.type": "LOCAL",
            "mlflow.user": getpass.getuser(),
            FOLDER: str(self.folder.resolve()),
            **owner_tags(int(facts.get("pid", 0))),
            "microgpt.git_dirty": str(git.get("dirty", "")),
        }
        if git.get("commit"):
            tags["mlflow.source.git.commit"] = git["commit"]
        if os.environ.get(PARENT):
            tags["mlflow.parentRunId"] = os.environ[PARENT]
        experiment = experiment_id(self.client, self.given["uri"], self.given["experiment"])
        start = milliseconds(str(facts.get("started", "")))
        run = self.client.create_run(experiment, start_time=start, tags=tags, run_name=facts.get("name"))
        self.run_id, self.described = run.info.run_id, False
        files.write_json(note, {"run_id": self.run_id, "experiment_id": experiment, "described": False})
        self.describe()
        send_rest(mend(self.client, experiment))

    def _read_stored(self) -> None:
        for key in self.client.get_run(self.run_id).data.metrics:
            self.stored[key] = {m.step for m in self.client.get_metric_history(self.run_id, key)}

    def describe(self) -> None:
        """Parameters, data sets, config: what does not change while the run goes on; again where it was cut off."""
        if self.described:
            return
        from mlflow.entities import Dataset, DatasetInput, InputTag

        facts = read_run(self.folder)
        config = read_config(self.folder)
        values = flattened(config)
        for key in ("parameters", "flops_per_token", "vocab_size", "device", "precision"):
            values[f"run.{key}"] = facts.get(key, "")
        there = self.client.get_run(self.run_id).data.params  # the store refuses other values
        log_params(self.client, self.run_id, {key: value for key, value in values.items() if key not in there})
        data = facts.get("data", {})
        inputs = []
        for split in ("train", "val"):
            source = ", ".join(str(s["path"]) for s in data.get("sources", []))
            digest = f"{data.get('tokens_fingerprint', '')[:16]}-{split}"
            profile = str(data.get(split, {}))
            name = Path(source.split(", ")[0]).name or "data"
            entity = Dataset(name, digest, "local", source[:MAX_SOURCE], None, profile)
            inputs.append(DatasetInput(entity, [InputTag("mlflow.data.context", split)]))
        self.client.log_inputs(self.run_id, inputs)
        self.client.log_artifact(self.run_id, str(self.folder / "config.yaml"))
        files.write_json(self.folder / MLFLOW, {**files.read_json(self.folder / MLFLOW), "described": True})
        self.described = True

    def send(self) -> bool:
        """Send the metrics that are new; whether there may be more at once."""
        points: list[Point] = []
        end = self.offset
        for behind, line in read_lines(self.folder / METRICS, self.offset):
            end = behind
            with suppress(KeyError, ValueError, TypeError, AttributeError, OverflowError):
                when, step = milliseconds(str(line["time"])), int(line["step"])
                step.to_bytes(8, "big", signed=True)  # a damaged line can hold a number that no store takes
                points.extend(Point(key, float(value), when, step) for key, value in line["metrics"].items())
            if len(points) >= MAX_POINTS:
                break
        more = len(points) >= MAX_POINTS
        system, *system_end = self._system()
        new = {(p.key, p.step): p for p in (*points, *system) if p.step not in self.stored.get(p.key, ())}
        self._write(list(new.values()))
        self.offset = end
        self.system_offset, self.system_rows = system_end
        return more

    def _write(self, points: list[Point]) -> None:
        """Write points, in the way that this store takes; what went through is known where the rest fails."""
        from mlflow.entities import Metric

        table = self.points if self.points is not None and self.points.known else None
        most = MAX_METRICS if table is None else MAX_POINTS
        for start in range(0, len(points), most):
            group = points[start : start + most]
            if table is None:
                self.client.log_batch(self.run_id, metrics=[Metric(*point) for point in group])
            else:
                table.insert(self.run_id, group)
            for point in group:
                self.stored.setdefault(point.key, set()).add(point.step)

    def _system(self) -> tuple[list[Point], int, int]:
        """Samples of the system that are new, with where they end: bytes of the file and samples so far."""
        found: list[Point] = []
        offset, number = self.system_offset, self.system_rows
        for behind, row in read_rows(self.folder / "system.csv", offset):
            with suppress(ValueError, KeyError):
                when = milliseconds(row["timestamp"])
                found.extend(Point(key, float(row[column]), when, number) for column, key in SYSTEM_NAMES.items())
            offset, number = behind, number + 1
        return found, offset, number

    def close(self, status: str) -> None:
        """What can be said only at the end: samples, plot, tables, status."""
        for name in ARTIFACTS:
            if (self.folder / name).exists():
                self.client.log_artifact(self.run_id, str(self.folder / name))
        rows = [
            (line["step"], prompt, text)
            for _, line in read_lines(self.folder / SAMPLES)
            for text, prompt in zip(line["samples"], line.get("prompts") or [""] * len(line["samples"]))
        ]
        if rows:
            table = {"step": [r[0] for r in rows], "prompt": [r[1] for r in rows], "sample": [r[2] for r in rows]}
            path = f"samples-{read_run(self.folder).get('steps', 0)}.json"  # log_table appends: one file an end
            self.client.log_table(self.run_id, table, path)
        self._plot()
        if status == PRUNED:  # MLflow has no such status; it ended as its sweep meant it to
            self.client.set_tag(self.run_id, "microgpt.pruned", "true")
        self.client.set_terminated(self.run_id, FINISHED if status == PRUNED else status)

    def _plot(self) -> None:
        figure = loss_figure(self.folder)
        if figure is not None:
            self.client.log_figure(self.run_id, figure, PICTURE)

    def run(self) -> int:
        """Feed until the run has ended and everything is sent; 1 where the store could not be reached."""
        while not read_run(self.folder).get("ready") and self.status() == RUNNING:
            time.sleep(0.1)
        if not read_run(self.folder).get("ready"):
            return 0  # it ended before there was anything to say
        failing_since, said = 0.0, ""
        while True:
            status = self.status()
            if status != RUNNING:
                give_way(False)  # it is waited for
            try:
                if not self.run_id:
                    self.open()
                self.describe()
                more = self.send()
                failing_since = 0.0
                if status != RUNNING and not more:
                    self.close(status)
                if self.file is not None and self.file.is_gone():
                    self._start_over()
                if status != RUNNING and not more:
                    return 0
                if not more:
                    time.sleep(POLL_SECONDS)
            except UsageError:
                raise  # trying again would not help
            except Exception as error:
                if said != (said := repr(error)[:200]):  # not the same again for hours
                    print(redacted(traceback.format_exc()), file=sys.stderr, flush=True)
                failing_since = failing_since or time.monotonic()
                if status != RUNNING and time.monotonic() - failing_since > RETRY_SECONDS:
                    return 1
                time.sleep(POLL_SECONDS)

    def _start_over(self) -> None:
        """Go on as a new process, which knows nothing of the store that was deleted under this one."""
        print("the store was deleted; everything is sent again to a new one", file=sys.stderr, flush=True)
        give_way(False)
        os.execv(sys.executable, [sys.executable, "-m", "microgpt.tracking.feeder", str(self.folder)])


MAX_SOURCE = 60_000


def main() -> int:
    """Entry point."""
    quiet_libraries()
    folder = Path(sys.argv[1])
    load_libraries()
    give_way(True)
    try:
        with files.waiting_lock(folder / LOCK):  # a feeder of the run before a resume may still be at work
            return RunFeeder(folder).run()
    except (ModelError, UsageError) as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
