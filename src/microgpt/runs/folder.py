"""The run folder: the ground truth of a run, written first and readable without MLflow.

`config.yaml` (resolved), `run.json` (what, who, when, how it ended), `metrics.jsonl` (append-only),
`samples.jsonl`, `eval.csv`, `system.csv`, `train.log`, `checkpoints/`, and `mlflow.json` once the run has an id.
"""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from microgpt import files
from microgpt.errors import ModelError, printable, redacted
from microgpt.runtime import now_iso

RUNNING, FINISHED, KILLED, FAILED = "RUNNING", "FINISHED", "KILLED", "FAILED"
#: of a trial that its sweep found not worth going on with: it ended as it should
PRUNED = "PRUNED"
CONFIG, RUN, METRICS, SAMPLES, LOG = "config.yaml", "run.json", "metrics.jsonl", "samples.jsonl", "train.log"
COMMAND = "MICROGPT_COMMAND"  # what the user typed, where a launcher has started this process
EVAL_COLUMNS = (
    "timestamp", "step", "train_loss", "val_loss", "best_val", "generalization_gap", "improved", "patience_used",
    "patience_max", "learning_rate", "perplexity", "bits_per_byte",
)  # fmt: skip
SYSTEM_COLUMNS = (
    "timestamp", "pid", "cpu_percent", "proc_rss_kb", "sys_mem_used_mb", "sys_mem_free_mb", "sys_mem_total_mb",
    "step", "step_total",
)  # fmt: skip


def finite(value: float) -> float | str:
    """A number as JSON can hold it: NaN and infinities as texts."""
    return value if math.isfinite(value) else repr(float(value))


class RunFolder:
    """Writes a run's files.

    Args:
        path: the folder; made where it is not there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.level = "info"
        self._appending: dict[str, TextIO] = {}
        try:
            files.make_folder(path)
            for above in (path.resolve().parents)[:3]:  # Hydra, which has made them, syncs no name
                with suppress(PermissionError):  # of a folder that may be entered but not read
                    files.fsync_folder(above)
            probe = path / f".probe-{os.getpid()}"
            probe.write_text("")
            probe.unlink()
        except OSError as error:
            raise files.disk_error(error, path, 0) from error

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml."""
        import yaml

        text = yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True)
        files.write_text(self.path / CONFIG, text)

    def update(self, **facts: Any) -> dict[str, Any]:
        """Add or replace facts in run.json and return all of them."""
        known = read_run(self.path) if (self.path / RUN).exists() else {}
        known.update(facts)
        files.write_json(self.path / RUN, known)
        return known

    def append(self, name: str, line: str) -> None:
        """Add one line to a file; a reader sees it at once, and never half of it, except after a power cut."""
        file = self._appending.get(name)
        if file is None:
            self._end_torn_line(self.path / name)
            file = self._appending[name] = open(self.path / name, "a", encoding="utf-8")  # noqa: SIM115
        try:
            file.write(line + "\n")
            file.flush()
        except OSError as error:
            raise files.disk_error(error, self.path / name, len(line)) from error

    def sync(self) -> None:
        """Bring what was appended to the disk, so that no checkpoint outlives the metrics of its steps."""
        try:
            for file in self._appending.values():
                os.fsync(file.fileno())
            files.fsync_folder(self.path)
        except OSError as error:
            raise files.disk_error(error, self.path, 0) from error

    def _end_torn_line(self, path: Path) -> None:
        """Close the half line that a power cut can leave, so that the next line stands alone."""
        with suppress(OSError):
            with open(path, "rb+") as file:
                if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
                    file.write(b"\n")

    def log(self, text: str, level: str = "info") -> None:
        """Append a line to train.log; `debug` lines only where the run's level asks for them."""
        if level == "info" or self.level == "debug":
            self.append(LOG, f"{now_iso()} {level} {redacted(printable(text))}")

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl."""
        values = {key: finite(float(value)) for key, value in metrics.items()}
        line = json.dumps({"step": step, "time": now_iso(), "metrics": values}, allow_nan=False)
        self.append(METRICS, line)

    def log_row(self, name: str, columns: tuple[str, ...], row: Mapping[str, Any]) -> None:
        """Append a row to a CSV file, which gets its header first."""
        if not (self.path / name).exists():
            self.append(name, ",".join(columns))
        self.append(name, ",".join(str(row.get(c, "")) for c in columns))

    def close(self) -> None:
        """Close the files that were appended to."""
        for file in self._appending.values():
            file.close()
        self._appending.clear()


class FollowedFolder(RunFolder):
    """The run folder as the processes see it that follow the first one of a distributed run: they write nothing."""

    def __init__(self, path: Path) -> None:  # makes and tries nothing either
        self.path, self.level, self._appending = path, "info", {}

    def write_config(self, config: Mapping[str, Any]) -> None:
        pass

    def update(self, **facts: Any) -> dict[str, Any]:
        return facts

    def append(self, name: str, line: str) -> None:
        pass

    def sync(self) -> None:
        pass


def read_run(path: Path) -> dict[str, Any]:
    """The facts of run.json.

    Raises:
        ModelError: the folder is no run, or run.json is damaged.
    """
    try:
        facts: Any = files.read_json(path / RUN)
    except FileNotFoundError:
        raise ModelError(f"{path} is no run folder: it has no {RUN}", "see `microgpt runs`") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path / RUN} is damaged ({error})", "see `microgpt runs` for others") from None
    return facts if isinstance(facts, dict) else {}


def read_config(path: Path) -> dict[str, Any]:
    """The resolved config of a run.

    Raises:
        ModelError: it has none, or it is damaged.
    """
    import yaml

    try:
        content: Any = yaml.safe_load((path / CONFIG).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path} is no run folder: it has no {CONFIG}", "see `microgpt runs`") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ModelError(f"{path / CONFIG} is damaged ({type(error).__name__})", "give another run") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path / CONFIG} is damaged (no mapping)", "give another run")
    return content


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {str(key): float(value) for key, value in values.items()}


def read_lines(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, Any]]]:
    """(offset behind it, value) of each whole JSON line from an offset on; half and damaged lines are passed over."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        file.seek(start)
        while (line := file.readline()).endswith(b"\n"):
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                if isinstance(value, dict):
                    yield file.tell(), value


def read_rows(path: Path, start: int = 0) -> Iterator[tuple[int, dict[str, str]]]:
    """(offset behind it, cells by column) of each whole CSV row from an offset on; other rows are passed over."""
    with suppress(FileNotFoundError), open(path, "rb") as file:
        columns = file.readline().decode("utf-8", "replace").strip().split(",")
        file.seek(max(start, file.tell()))
        while (line := file.readline()).endswith(b"\n"):
            cells = line.decode("utf-8", "replace").strip().split(",")
            if len(cells) == len(columns):
                yield file.tell(), dict(zip(columns, cells))


def read_metrics(path: Path) -> dict[str, dict[int, float]]:
    """All metrics of a run: key to step to value. The last value of a (key, step) counts (after a resume)."""
    found: dict[str, dict[int, float]] = {}
    for _, line in read_lines(path / METRICS):
        with suppress(KeyError, ValueError, TypeError, AttributeError, OverflowError):
            for key, value in _numbers(line["metrics"]).items():
                found.setdefault(key, {})[int(line["step"])] = value
    return found


def command_line() -> str:
    """What the user typed, for a record."""
    return " ".join(["python -m microgpt." + Path(sys.argv[0]).stem, *sys.argv[1:]])


def provenance() -> dict[str, Any]:
    """Versions, git state, machine and command: what a run's record needs beside its config."""
    from importlib.metadata import version

    packages = ("microgpt", "torch", "pytorch-lightning", "hydra-core", "mlflow", "tokenizers", "numpy")
    return {
        "command": redacted(os.environ.get(COMMAND) or command_line()),
        "versions": {name: version(name) for name in packages},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "git": git_state(),
    }


def git_state() -> dict[str, Any]:
    """Commit, branch and whether there are changes, of the current folder; empty outside a repository."""

    def ask(*words: str) -> str:
        done = subprocess.run(["git", *words], capture_output=True, text=True, timeout=5, check=True)
        return done.stdout.strip()

    try:
        return {
            "commit": ask("rev-parse", "HEAD"),
            "branch": ask("rev-parse", "--abbrev-ref", "HEAD"),
            "dirty": bool(ask("status", "--porcelain", "--untracked-files=no")),
        }
    except (OSError, subprocess.SubprocessError):
        return {}
