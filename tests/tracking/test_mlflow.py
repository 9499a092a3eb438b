"""What MLflow holds of a run, however the run or the store ended. The stores and servers are real."""

from __future__ import annotations

import http.client
import json
import math
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from microgpt.runs.find import Run
from microgpt.runs.folder import read_metrics, read_run
from microgpt.tracking.feeder import flattened

pytestmark = pytest.mark.slow
STOP = "x" * 7000
#: a step long enough for a signal to find the run in its middle
LONG = ["trainer.max_steps=300", "trainer.eval_interval=50", "trainer.accumulate=12", "trainer.steps_per_call=5"]


def store(home: Path, name: str = "mlruns/mlflow.db") -> Any:
    from mlflow import MlflowClient

    return MlflowClient(f"sqlite:///{home / name}")


def mlflow_run(home: Path, folder: Path, name: str = "mlruns/mlflow.db") -> Any:
    return store(home, name).get_run(Run(folder, {}).mlflow_id)


def stored(database: Path, run_id: str) -> dict[str, list[int]]:
    """Key to steps as they lie in the store, sorted; a step that was sent twice is there twice."""
    found: dict[str, list[int]] = {}
    with closing(sqlite3.connect(database)) as opened:
        rows = opened.execute("SELECT key, step FROM metrics WHERE run_uuid = ? ORDER BY step", (run_id,))
        for key, step in rows:
            found.setdefault(key, []).append(step)
    return found


def assert_all_there_once(database: Path, folder: Path) -> None:
    there = stored(database, Run(folder, {}).mlflow_id)
    for key, values in read_metrics(folder).items():
        assert there.get(key) == sorted(values), key


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def started() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a training in a folder; one that is left by a test that failed is ended."""
    processes: list[subprocess.Popen[str]] = []

    def start(home: Path, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        with open(home / "err.txt", "w") as err:
            process = subprocess.Popen(
                [sys.executable, "-m", "microgpt.train", *words, "hydra.run.dir=run"],
                cwd=home,
                stdout=err,
                stderr=err,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()


def until(true: Any, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.05)


def has_step(folder: Path, step: int) -> bool:
    return (folder / "metrics.jsonl").exists() and max(read_metrics(folder).get("train/loss", {0: 0})) >= step


# ---- a run that went well


@pytest.fixture(scope="module")
def home(warm_anywhere, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which `run` was trained, tracked."""
    home = tmp_path_factory.mktemp("tracked")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *words], cwd=home, check=True, capture_output=True)
    extra = [f"sampling.stop=[{STOP}]", "tracking.system_interval=0.001", "hydra.run.dir=run"]
    warm_anywhere("train", *small, *extra, cwd=home)
    until(lambda: Run(home / "run", {}).mlflow_id and mlflow_run(home, home / "run").info.status == "FINISHED")
    return home


@pytest.fixture
def run(home: Path) -> Any:
    return mlflow_run(home, home / "run")


def test_parameters_are_whole_and_the_longest_are_cut_without_a_fault(home: Path, run: Any) -> None:
    config = flattened(yaml.safe_load((home / "run" / "config.yaml").read_text()))
    assert len(config) > 80
    for key, value in config.items():
        assert run.data.params[key] == str(value)[:6000], key
    assert len(run.data.params["sampling.stop"]) == 6000
    assert run.data.params["run.parameters"] == "5032"


def test_data_sets_are_inputs_with_a_digest(home: Path, run: Any) -> None:
    inputs = {next(t.value for t in i.tags if t.key == "mlflow.data.context"): i.dataset for i in
              run.inputs.dataset_inputs}  # fmt: skip
    assert set(inputs) == {"train", "val"}
    fingerprint = read_run(home / "run")["data"]["tokens_fingerprint"]
    for data in inputs.values():
        assert data.digest.startswith(fingerprint[:16])
        assert data.name == "names.txt"


def test_samples_plot_and_config_are_artifacts(home: Path, run: Any) -> None:
    client = store(home)
    names = {a.path for a in client.list_artifacts(run.info.run_id)}
    assert {"config.yaml", "loss.png", "metrics.jsonl", "eval.csv", "run.json", "samples-40.json"} <= names
    folder = Path(run.info.artifact_uri.removeprefix("file://"))
    assert folder.is_relative_to(home / "mlruns")
    assert (folder / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert (folder / "config.yaml").read_bytes() == (home / "run" / "config.yaml").read_bytes()
    table = json.loads((folder / "samples-40.json").read_text())
    assert table["columns"] == ["step", "prompt", "sample"]
    kept = [json.loads(line)["samples"] for line in (home / "run" / "samples.jsonl").read_text().splitlines()]
    assert [row[2] for row in table["data"]] == [text for samples in kept for text in samples]


def test_git_command_and_host_are_tags(home: Path, run: Any) -> None:
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=home, capture_output=True, text=True).stdout.strip()
    assert run.data.tags["mlflow.source.git.commit"] == head
    assert run.data.tags["microgpt.git_dirty"] == "False"
    assert run.data.tags["mlflow.source.name"].startswith("python -m microgpt.train")
    assert run.data.tags["microgpt.run_folder"] == str(home / "run")


def test_every_metric_of_the_run_folder_is_stored_once_and_the_machine_beside_it(home: Path, run: Any) -> None:
    assert run.info.status == "FINISHED"
    assert run.info.end_time >= run.info.start_time
    assert_all_there_once(home / "mlruns" / "mlflow.db", home / "run")
    client, metrics = store(home), read_metrics(home / "run")
    for key in ("train/loss", "val/loss"):
        assert {m.step: m.value for m in client.get_metric_history(run.info.run_id, key)} == metrics[key]
    assert {k for k in run.data.metrics if k.startswith("system/")} >= {
        "system/cpu_utilization_percentage",
        "system/system_memory_usage_megabytes",
    }


def test_sending_again_what_is_there_adds_nothing_nor_does_a_damaged_line(home: Path) -> None:
    before = stored(home / "mlruns" / "mlflow.db", Run(home / "run", {}).mlflow_id)
    words = [sys.executable, "-m", "microgpt.tracking.feeder", "run"]
    metrics = home / "run" / "metrics.jsonl"
    whole = metrics.read_text()
    try:  # a step for which no store has room
        metrics.write_text(whole + json.dumps({**json.loads(whole.splitlines()[-1]), "step": 2**63}) + "\n")
        done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=60)
    finally:
        metrics.write_text(whole)
    assert done.returncode == 0, done.stderr
    assert stored(home / "mlruns" / "mlflow.db", Run(home / "run", {}).mlflow_id) == before
    assert mlflow_run(home, home / "run").info.status == "FINISHED"


def test_the_proof_of_an_export_is_kept_with_the_run(home: Path, warm_anywhere) -> None:
    pytest.importorskip("onnx")
    warm_anywhere("export", "run=run", "format=onnx", cwd=home)
    run, client = mlflow_run(home, home / "run"), store(home)
    assert run.data.metrics["export/onnx_f32_max_difference"] < 1e-4
    names = [a.path for a in client.list_artifacts(run.info.run_id, "export/onnx_f32")]
    assert names == [f"export/onnx_f32/{name}" for name in ("README.md", "loss.png", "proof.json")]
    proof = json.loads((home / "run" / "export" / "onnx-f32" / "proof.json").read_text())
    assert proof["runtime"].startswith("onnxruntime ")
    assert proof["files"]["model.onnx"]["bytes"] > 0


def test_the_ui_answers_this_machine_and_refuses_foreign_hosts(home: Path) -> None:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "microgpt.cli", "ui", "--port", str(port)],
        cwd=home,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )

    def status(host: str, path: str = "/") -> int:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        with closing(connection):
            connection.request("GET", path, headers={"Host": host})
            return connection.getresponse().status

    def answers() -> bool:
        assert process.poll() is None
        try:
            return status(f"127.0.0.1:{port}") == 200
        except OSError:
            return False

    try:
        until(answers, 90)
        assert status(f"localhost:{port}") == 200
        assert status("evil.example") in (400, 403)
        assert status("evil.example", "/api/2.0/mlflow/experiments/search?max_results=5") in (400, 403)
        listening = subprocess.run(["cat", "/proc/net/tcp"], capture_output=True, text=True).stdout
        bound = [line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line and " 0A " in line]
        assert bound == [f"0100007F:{port:04X}"], "only on 127.0.0.1"
    finally:
        process.send_signal(signal.SIGINT)
        try:
            assert process.wait(180) in (0, 130)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


# ---- runs that ended otherwise


def test_nan_and_inf_are_stored_and_a_diverged_run_is_failed(warm_anywhere, small: list[str], tmp_path: Path) -> None:
    """Tracked into the store that MLFLOW_TRACKING_URI names."""
    words = ["optimizer=adamw", "optimizer.learning_rate=10", "optimizer.weight_decay=10", "optimizer.grad_clip=0"]
    words += ["optimizer.schedule=constant", "optimizer.warmup_steps=0", "model.norm=layernorm"]
    words += ["trainer.eval_interval=1", "hydra.run.dir=run"]
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/elsewhere/own.db"}
    warm_anywhere("train", *small, *words, cwd=tmp_path, code=6, env=env)
    assert not (tmp_path / "mlruns").exists()
    values = read_metrics(tmp_path / "run")
    assert any(math.isnan(v) for v in values["val/loss"].values())
    assert any(math.isinf(v) for v in values["val/ppl"].values())
    until(lambda: mlflow_run(tmp_path, tmp_path / "run", "elsewhere/own.db").info.status == "FAILED")
    assert_all_there_once(tmp_path / "elsewhere" / "own.db", tmp_path / "run")
    client, run_id = store(tmp_path, "elsewhere/own.db"), Run(tmp_path / "run", {}).mlflow_id
    history = {m.step: m.value for m in client.get_metric_history(run_id, "val/loss")}
    assert {s for s, v in history.items() if math.isnan(v)} == {
        s for s, v in values["val/loss"].items() if math.isnan(v)
    }


def test_sigterm_is_killed_in_mlflow_too(started, small: list[str], tmp_path: Path) -> None:
    process = started(tmp_path, *small, *LONG, "trainer.max_steps=100000")
    until(lambda: has_step(tmp_path / "run", 20))
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143
    until(lambda: Run(tmp_path / "run", {}).mlflow_id)
    until(lambda: mlflow_run(tmp_path, tmp_path / "run").info.status == "KILLED")
    assert_all_there_once(tmp_path / "mlruns" / "mlflow.db", tmp_path / "run")


def test_a_run_killed_and_resumed_is_one_mlflow_run_with_every_step_once(
    started, small: list[str], warm_anywhere, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    process = started(tmp_path, *small, *LONG)
    until(lambda: has_step(run, 120))
    process.kill()
    process.wait()
    until(lambda: Run(run, {}).mlflow_id)
    until(lambda: mlflow_run(tmp_path, run).info.status == "KILLED", 30)  # the feeder has noticed
    first = Run(run, {}).mlflow_id
    warm_anywhere("train", "resume=run", cwd=tmp_path)
    assert Run(run, {}).mlflow_id == first
    until(lambda: mlflow_run(tmp_path, run).info.status == "FINISHED")
    assert sorted(read_metrics(run)["train/loss"]) == list(range(1, 301))
    assert_all_there_once(tmp_path / "mlruns" / "mlflow.db", run)
    assert len(store(tmp_path).search_runs(["0", "1", "2"])) == 1


def test_tracking_off_makes_no_store(warm, small: list[str], tmp_path: Path) -> None:
    warm("train", *small, "trainer.max_steps=2", "tracking=off", "hydra.run.dir=run")
    assert not (tmp_path / "mlruns").exists()
    assert not (tmp_path / "run" / "mlflow.json").exists()


# ---- stores that fail


@contextmanager
def server(home: Path, port: int) -> Iterator[None]:
    """A real MLflow server."""
    from microgpt.tracking.ui import command, environment

    words = command(f"sqlite:///{home}/server.db", port)
    with open(home / "server.txt", "a") as log:
        process = subprocess.Popen(words, cwd=home, env=environment(), stdout=log, stderr=log, start_new_session=True)

    def answers() -> bool:
        try:
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
                connection.request("GET", "/health")
                return connection.getresponse().status == 200
        except OSError:
            return False

    try:
        until(answers, 90)
        yield
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_what_feeds_the_store_lets_the_steps_go_first(started, small: list[str], tmp_path: Path) -> None:
    process = started(tmp_path, *small, *LONG, "trainer.max_steps=1000000")
    until(lambda: Run(tmp_path / "run", {}).mlflow_id)
    (feeder,) = psutil.Process(process.pid).children()
    assert feeder.nice() == psutil.Process(process.pid).nice() + 10
    group = Path(f"/proc/{feeder.pid}/autogroup")  # Linux shares out by session first
    assert not group.exists() or group.read_text().split()[-1] == "10"
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143
    feeder.wait(180)  # on a busy machine it goes on alone
    assert_all_there_once(tmp_path / "mlruns" / "mlflow.db", tmp_path / "run")


def test_a_run_that_fails_before_its_first_step_does_not_wait_for_mlflow(started, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("a")
    process = started(tmp_path, "data.path=data.txt", "tokenizer=char")
    assert process.wait(180) == 3
    said = (tmp_path / "err.txt").read_text()
    assert "note: MLflow" not in said
    assert (tmp_path / "run" / "mlflow.log").exists(), "it was not started"
    assert not (tmp_path / "mlruns").exists()
    assert not [p for p in psutil.process_iter(["cwd"]) if p.info["cwd"] == str(tmp_path)], "a helper was left"


def test_a_server_gone_in_mid_run_costs_one_note_and_gets_everything_afterwards(
    started, small: list[str], tmp_path: Path
) -> None:
    port, run = free_port(), tmp_path / "run"
    words = ["tracking=server", f"tracking.uri=http://127.0.0.1:{port}", *LONG, "trainer.max_steps=1000000"]
    with server(tmp_path, port):
        process = started(tmp_path, *small, *words)
        until(lambda: Run(run, {}).mlflow_id and has_step(run, 1))
    seen = max(read_metrics(run)["train/loss"])
    until(lambda: has_step(run, seen + 20))  # training goes on without it
    ended = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(180) == 143
    assert time.monotonic() - ended < 12
    said = (tmp_path / "err.txt").read_text()
    assert said.count("note: MLflow") == 1
    assert "Traceback" not in said
    with server(tmp_path, port):
        words = [sys.executable, "-m", "microgpt.tracking.feeder", "run"]
        env = {**os.environ, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
    assert_all_there_once(tmp_path / "server.db", run)


def test_a_server_that_never_answers_does_not_hold_a_run(started, small: list[str], tmp_path: Path) -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = started(tmp_path, *small, "tracking=server", f"tracking.uri={address}")
        assert process.wait(180) == 0
        waited = time.time() - (tmp_path / "run" / "metrics.jsonl").stat().st_mtime
    assert waited < 10, f"{waited:.1f} s after the last step"
    assert read_run(tmp_path / "run")["status"] == "FINISHED"
    assert (tmp_path / "err.txt").read_text().count("note: MLflow") == 1


def test_a_sweep_is_not_held_by_a_server_that_never_answers(warm_anywhere, small: list[str], tmp_path: Path) -> None:
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        uri = f"tracking.uri=http://127.0.0.1:{silent.getsockname()[1]}"
        words = ["-m", *small, "tracking=server", uri, "optimizer.learning_rate=0.01", "trainer.max_steps=2"]
        began = time.monotonic()
        done = warm_anywhere("train", *words, cwd=tmp_path)
    assert time.monotonic() - began < 60
    assert "note: MLflow has no parent run" in done.stderr


def test_a_stage_is_not_held_by_a_server_that_never_answers(warm_anywhere, tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("".join(f"line {i} of the text\n" for i in range(200)))
    with closing(socket.socket()) as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(50)
        uri = f"tracking.uri=http://127.0.0.1:{silent.getsockname()[1]}"
        words = ["data.path=data.txt", "tokenizer=char", "tracking=server", uri, "hydra.run.dir=out"]
        began = time.monotonic()
        done = warm_anywhere("validate", *words, cwd=tmp_path)
    assert time.monotonic() - began < 30
    assert done.stderr.count("note: not logged to MLflow") == 1
    assert (tmp_path / "out" / "report.json").exists()
