"""Sessions that follow a run, and sessions from a file."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from microgpt.lab.frames import from_json
from microgpt.runs.find import Run
from microgpt.runs.folder import read_run

from .conftest import Lab, Serve

TRAIN = [
    "data=names", "tokenizer=char", "model=micro_first", "optimizer=adamw", "optimizer.learning_rate=0.01",
    "data.packing=false", "data.batch_size=2", "tracking=off", "device.threads=1", "sampling.num_samples=1", "lab=on",
    "trainer.eval_interval=50",
]  # fmt: skip


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run of 200 steps, made with lab=on."""
    folder = tmp_path_factory.mktemp("home")
    command = [sys.executable, "-m", "microgpt.train", *TRAIN, "trainer.max_steps=200", "name=followed"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=300, env=environment)
    return folder


@pytest.fixture(scope="module")
def server(serve: Serve, home: Path) -> Lab:
    """A server that follows that run."""
    return serve("--run", "latest", folder=home)


@pytest.fixture
def lab(server: Lab) -> Lab:
    return server


@pytest.fixture
def followed(lab: Lab) -> str:
    """The session of the run."""
    run = lab.get("/runs").json()["runs"][0]
    assert (run["status"], run["step"]) == ("FINISHED", 200)
    return lab.post("/runs/attach", run=run["run"]).json()["session_id"]


def test_a_run_is_followed_from_the_command_line(lab: Lab, home: Path) -> None:
    (session,) = [s for s in lab.get("/sessions").json()["sessions"] if s["kind"] == "run"]
    assert (session["step"], session["num_steps"], session["running"]) == (200, 200, False)
    found = lab.get(f"/session/{session['session_id']}/scalars").json()
    assert [row[0] for row in found["rows"]] == list(range(1, 201))
    (path,) = home.glob("outputs/*/*/metrics.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [line["metrics"]["train/loss"] for line in lines if "train/loss" in line["metrics"]]
    assert [row[1] for row in found["rows"]] == losses
    assert [row[0] for row in found["rows"] if row[6] is not None] == [50, 100, 150, 200]


def test_lab_on_keeps_what_the_lab_goes_back_to(lab: Lab, followed: str) -> None:
    metadata = lab.get(f"/session/{followed}").json()["metadata"]
    assert metadata["kind"] == "run"
    assert metadata["recorded"] == list(range(2, 201, 2))
    at = f"/session/{followed}/inspect"
    for panel in ("attention", "graph", "parameters", "embeddings", "knockout"):
        assert lab.post(at, panel=panel, step=120).json()["step"] == 120
    found = lab.post(at, panel="weight", step=120, params={"name": "wte", "index": [1, 1]}).json()["data"]
    assert found["error"] < 1e-6
    losses = {row[0]: row[1] for row in lab.get(f"/session/{followed}/scalars").json()["rows"]}
    # the loss of the batch that comes next, from the checkpoint's weights, is the one that training has seen
    graph = lab.post(at, panel="graph", step=120).json()["data"]
    assert graph["loss"] == pytest.approx(losses[121], rel=1e-5)


def test_a_followed_run_cannot_be_driven_but_forked(lab: Lab, followed: str) -> None:
    for what in ("step", "run", "reset"):
        refused = lab.post(f"/session/{followed}/{what}")
        assert (refused.status_code, refused.json()["detail"]) == (
            409,
            "this session follows a run; fork it to train on",
        )
    fork = lab.post(f"/session/{followed}/fork", step=100).json()
    assert (fork["metadata"]["step"], fork["metadata"]["kind"]) == (100, "live")
    lab.finish(fork["session_id"], steps=20)
    mine = lab.get(f"/session/{fork['session_id']}/scalars").json()["rows"]
    theirs = lab.get(f"/session/{followed}/scalars").json()["rows"]
    assert [row[1:4] for row in mine] == [row[1:4] for row in theirs[:120]]
    lab.client.delete(f"/session/{fork['session_id']}")


@pytest.mark.parametrize("reference", ["/etc", "../..", "nobody", "outputs", "%2e%2e", ""])
def test_no_other_folder_is_opened(lab: Lab, reference: str) -> None:
    assert lab.post("/runs/attach", run=reference).status_code in (404, 422)


def test_a_run_in_progress_is_followed_as_it_goes(serve: Serve, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "microgpt.train", *TRAIN, "trainer.max_steps=90000"]
    command += ["trainer.checkpoint_interval=100", "hydra.run.dir=outputs/day/run"]
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server = serve(folder=tmp_path)
        server.until(lambda: bool(server.get("/runs").json()["runs"]))
        begun = server.post("/runs/attach", run="run")
        assert begun.status_code == 200, begun.text
        at = f"/session/{begun.json()['session_id']}"
        server.until(lambda: server.get(at).json()["running"])
        first = server.get(at).json()["metadata"]
        server.until(lambda: server.get(at).json()["metadata"]["recorded"] != first["recorded"])
        assert server.get(at).json()["metadata"]["step"] > first["step"]
        training.send_signal(signal.SIGTERM)
        training.wait(timeout=120)
        server.until(lambda: not server.get(at).json()["running"])
        assert Run(tmp_path / "outputs/day/run", read_run(tmp_path / "outputs/day/run")).status == "KILLED"
    finally:
        training.kill()
        training.wait(timeout=120)


def test_a_trace_gives_back_what_it_was_made_of(lab: Lab) -> None:
    origin = lab.start(num_steps=30)
    lab.finish(origin)
    content = lab.get(f"/session/{origin}/trace")
    trace: dict[str, Any] = content.json()
    assert (trace["v"], trace["format"]) == (1, "microgpt-lab-trace")
    steps = trace["metadata"]["recorded"]
    assert steps == [0, 10, 20, 30]
    assert {frame["step"] for frame in trace["frames"]} == set(steps)
    json.loads(content.content, parse_constant=pytest.fail)
    begun = lab.client.post("/trace", content=content.content).json()
    replay = begun["session_id"]
    assert begun["metadata"]["kind"] == "trace"
    assert (
        lab.get(f"/session/{replay}/scalars").json()["rows"] == lab.get(f"/session/{origin}/scalars").json()["rows"]
    )
    assert lab.get(f"/session/{replay}/samples").json() == lab.get(f"/session/{origin}/samples").json()
    for panel, params in (
        ("attention", {}), ("attention", {"row": 0, "off": []}), ("token", {"position": 2}),
        ("lens", {"position": 1}),
        ("parameters", {}), ("graph", {}), ("knockout", {"rows": 64}), ("matrix", {"name": "wte"}),
    ):  # fmt: skip
        asked = {"panel": panel, "step": 20, "params": params}
        mine = lab.post(f"/session/{replay}/inspect", **asked).json()
        theirs = lab.post(f"/session/{origin}/inspect", **asked).json()
        assert mine["data"] == theirs["data"]
        for name, tensor in from_json(theirs["tensors"]).items():
            assert from_json(mine["tensors"])[name] == pytest.approx(tensor, abs=1e-6, nan_ok=True)
    assert lab.post(f"/session/{replay}/inspect", panel="attention", step=7).status_code == 404
    for what in ("step", "run", "reset", "sample", "fork"):
        assert lab.post(f"/session/{replay}/{what}").status_code == 409
    again = lab.get(f"/session/{replay}/trace").json()
    assert again["frames"] == trace["frames"]
    with lab.socket(replay) as client:
        assert json.loads(client.recv(timeout=60))["metadata"]["step"] == 30
    for session in (origin, replay):
        lab.client.delete(f"/session/{session}")


@pytest.mark.parametrize("content", [b"", b"{}", b"[" * 100_000, b'{"v": 2}', b"\xff\xfe", b'{"format": "other"}'])
def test_what_is_no_trace_is_refused(lab: Lab, content: bytes) -> None:
    refused = lab.client.post("/trace", content=content)
    assert refused.status_code == 422
    assert "no trace of version 1" in refused.json()["detail"]


def test_a_tensor_that_is_not_what_it_says_is_refused(lab: Lab) -> None:
    origin = lab.start(num_steps=5)
    trace = lab.get(f"/session/{origin}/trace").json()
    next(frame for frame in trace["frames"] if frame["tensors"])["tensors"] = {"x": {"shape": [10**9], "f32": "AAAA"}}
    assert lab.post("/trace", **trace).status_code == 422
    lab.client.delete(f"/session/{origin}")


def test_a_branch_is_a_run_in_mlflow(serve: Serve, tmp_path: Path) -> None:
    server = serve("--tracking", "mlflow", folder=tmp_path)
    origin = server.start(num_steps=12)
    server.finish(origin)
    branch = server.post(f"/session/{origin}/fork", step=6, learning_rate=0.1).json()
    server.finish(branch["session_id"])
    notes = [tmp_path / branch["metadata"]["run"] / "mlflow.json"]
    notes.append(tmp_path / server.get(f"/session/{origin}").json()["metadata"]["run"] / "mlflow.json")
    server.until(lambda: all(note.exists() for note in notes))
    ids = {json.loads(note.read_text())["run_id"] for note in notes}
    assert len(ids) == 2
    server.until(lambda: all(mlflow_status(tmp_path, run) == ("FINISHED", 12) for run in ids))


def mlflow_status(folder: Path, run: str) -> tuple[str, int]:
    """How a run of the store stands, and how many losses it has."""
    store = sqlite3.connect(folder / "mlruns" / "mlflow.db")
    try:
        (status,) = store.execute("SELECT status FROM runs WHERE run_uuid = ?", (run,)).fetchone()
        asked = "SELECT COUNT(*) FROM metrics WHERE run_uuid = ? AND key = 'train/loss'"
        (losses,) = store.execute(asked, (run,)).fetchone()
        return status, losses
    finally:
        store.close()
