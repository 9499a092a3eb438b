"""A registered model is an MLflow model that MLflow itself serves, and the alias stays with the best version."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

import microgpt
from microgpt.runs.find import Run

pytestmark = pytest.mark.slow
ALIAS = "models:/microgpt@best"
PARAMS = {"seed": 5, "temperature": 0.9, "max_new_tokens": 12}


@pytest.fixture(scope="module")
def home(warm_anywhere, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `run` was trained, tracked and registered."""
    home = tmp_path_factory.mktemp("registered")
    warm_anywhere("train", *small, "tracking.system_interval=0", "hydra.run.dir=run", cwd=home)
    deadline = time.monotonic() + 240
    while not Run(home / "run", {}).mlflow_id:
        assert time.monotonic() < deadline, "the run has no MLflow id"
        time.sleep(0.1)
    words = ["run=run", "register=true", "alias=best"]
    refused = warm_anywhere("export", *words, "format=onnx", cwd=home, code=2)
    assert "add format=safetensors" in refused.stderr
    done = warm_anywhere("export", *words, cwd=home)
    assert f"registered as version 1 of microgpt, now {ALIAS}: no version had the alias" in done.stderr
    return home


@pytest.fixture
def folder(home: Path) -> Path:
    return home / "run" / "export" / "safetensors-f32"


@pytest.fixture
def wanted(folder: Path) -> list[str]:
    """What `microgpt.load` writes."""
    model = microgpt.load(folder, device="cpu")
    return [model.generate(prompt, **PARAMS)[0] for prompt in ("an", "")]


def python(home: Path, code: str, *words: str) -> Any:
    """What a program prints as JSON."""
    env = {**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"}
    command = [sys.executable, "-W", "ignore", "-c", code, *words]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=240, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_mlflow_loads_it_from_code_and_writes_what_the_folder_writes(home: Path, wanted: list[str]) -> None:
    code = (
        "import json, sys, mlflow, pandas; mlflow.set_tracking_uri('sqlite:///mlruns/mlflow.db');"
        "model = mlflow.pyfunc.load_model(sys.argv[1]); params = json.loads(sys.argv[2]);"
        "print(json.dumps(list(model.predict(pandas.DataFrame({'prompt': ['an', '']}), params=params))))"
    )
    assert python(home, code, ALIAS, json.dumps(PARAMS)) == wanted


def test_it_has_a_signature_an_example_and_pinned_requirements_and_no_pickle(home: Path) -> None:
    (description,) = (home / "mlruns" / "artifacts").rglob("MLmodel")
    content = yaml.safe_load(description.read_text())
    assert json.loads(content["signature"]["inputs"]) == [{"type": "string", "name": "prompt", "required": True}]
    assert {p["name"] for p in json.loads(content["signature"]["params"])} >= {"temperature", "top_k", "seed"}
    assert content["saved_input_example_info"]["artifact_path"] == "input_example.json"
    pins = (description.parent / "requirements.txt").read_text().split()
    assert all(re.fullmatch(r"[a-z]+==[\w.]+", pin) for pin in pins), pins
    assert {pin.partition("==")[0] for pin in pins} == {"microgpt", "mlflow", "numpy", "tokenizers"}
    found = {p.suffix for p in description.parent.rglob("*") if p.is_file()}
    assert found <= {"", ".py", ".json", ".safetensors", ".txt", ".yaml", ".md", ".png"}
    assert Run(home / "run", {}).mlflow_id == content["run_id"]


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def serving(home: Path, *words: str) -> Iterator[Callable[[str, Any], Any]]:
    """A server of whatever kind; ask it until it answers."""
    port = free_port()
    env = {**os.environ, "MLFLOW_TRACKING_URI": "sqlite:///mlruns/mlflow.db", "OMP_NUM_THREADS": "1"}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"  # MLflow starts `uvicorn` by its name
    with open(home / "server.txt", "w") as log:
        command = [sys.executable, "-m", *words, "--port", str(port)]
        process = subprocess.Popen(command, cwd=home, env=env, stdout=log, stderr=log, start_new_session=True)

    def ask(path: str, body: Any) -> Any:
        headers = {"Content-Type": "application/json"}
        request = Request(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), headers)
        deadline = time.monotonic() + 240
        while True:
            try:
                with urlopen(request, timeout=240) as answer:
                    return json.load(answer)
            except URLError:
                assert process.poll() is None, (home / "server.txt").read_text()
                assert time.monotonic() < deadline, (home / "server.txt").read_text()
                time.sleep(0.2)

    try:
        yield ask
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(180)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


def test_mlflow_serves_it(home: Path, wanted: list[str]) -> None:
    words = ["mlflow", "models", "serve", "-m", ALIAS, "--env-manager", "local", "--host", "127.0.0.1"]
    with serving(home, *words) as ask:
        rows = [{"prompt": "an"}, {"prompt": ""}]
        assert ask("/invocations", {"dataframe_records": rows, "params": PARAMS}) == {"predictions": wanted}


def test_the_project_serves_it_by_its_alias(home: Path, wanted: list[str]) -> None:
    pytest.importorskip("fastapi")
    with serving(home, "microgpt.cli", "serve", "--model-dir", ALIAS) as ask:
        body = {"model": "microgpt", "prompt": "an", "max_tokens": 12, "seed": 5, "temperature": 0.9}
        assert ask("/v1/completions", {**body, "top_p": 0.95, "top_k": 40})["choices"][0]["text"] == wanted[0]


def test_generate_and_info_take_the_alias_and_the_number(home: Path, folder: Path) -> None:
    said = [
        subprocess.run(
            [sys.executable, "-m", "microgpt.cli", "generate", "--model-dir", where, "--num-samples", "2"],
            cwd=home,
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        ).stdout
        for where in (ALIAS, "models:/microgpt/1", str(folder))
    ]
    assert said[0] == said[1] == said[2] != ""


def test_what_is_not_registered_is_one_line(home: Path) -> None:
    for reference in ("models:/microgpt@worst", "models:/other@best", "models:/microgpt/77", "models:/microgpt"):
        words = [sys.executable, "-m", "microgpt.cli", "info", "--model-dir", reference]
        done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=240)
        assert done.returncode == 4, done.stderr
        (line,) = done.stderr.strip().splitlines()
        assert f"{reference} is not registered" in line


PROMOTING = """
import json, sys
from dataclasses import replace
from microgpt.checkpoints.model import open_model
from microgpt.config.schema import TrackingConfig
from microgpt.runs.find import Run
from microgpt.tracking.registry import register, registered
from pathlib import Path
from microgpt.tracking.store import open_client
tracking, said = TrackingConfig(), []
opened, run_id = open_model(Path("run/export/safetensors-f32")), Run(Path("run"), {}).mlflow_id
client = open_client("sqlite:///mlruns/mlflow.db")
before = client.get_run(run_id).info
for val, data, promote in json.loads(sys.argv[1]):
    meta = {**opened.meta, "val": val, "data": {"fingerprint": data}}
    line = register(replace(opened, meta=meta), run_id, "top", promote, tracking, "judged")
    said.append([line, int(client.get_model_version_by_alias("judged", "top").version)])
after = client.get_run(run_id).info
assert (before.status, before.end_time) == (after.status, after.end_time), "the run is left as it was"
print(json.dumps(said))
"""


def test_the_alias_moves_to_a_better_version_only(home: Path) -> None:
    versions: list[Any] = [
        [{"val/bpb": 2.0, "val/loss": 3.0}, "a", "better"],
        [{"val/bpb": 2.1, "val/loss": 1.0}, "a", "better"],  # bits per byte are what counts
        [{"val/bpb": 1.9, "val/loss": 3.5}, "a", "better"],
        [{"val/bpb": 1.9, "val/loss": 3.5}, "a", "better"],
        [{"val/loss": 3.4}, "b", "better"],  # a tokenizer without bytes: the loss is what both have
        [{"val/bpb": 9.0}, "b", "better"],
        [{"val/bpb": 9.0}, "b", "always"],
    ]
    said = python(home, PROMOTING, json.dumps(versions))
    assert [holder for _, holder in said] == [1, 1, 3, 3, 5, 5, 7]
    assert "stays version 1: val/bpb 2.1000 against 2.0000 (promote=always moves it)" in said[1][0]
    assert said[2][0].endswith("version 3 of judged, now models:/judged@top: val/bpb 1.9000 against 2.0000")
    assert "val/loss 3.4000 against 3.5000, scored on other data" in said[4][0]
    assert "stays version 5: not both have a score" in said[5][0]
    assert said[6][0].endswith("promote=always")
