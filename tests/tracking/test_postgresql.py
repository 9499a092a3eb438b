"""A team's server: real MLflow on a real PostgreSQL, four training processes at once, a database that crashes.

One server is started for all of it, since that takes MLflow the better part of a minute on a busy machine; what
trains beside it is forked from one process that has imported what all of them need.
"""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from microgpt.checkpoints.folder import find
from microgpt.config.schema import TrackingConfig
from microgpt.errors import BusyError
from microgpt.runs.find import Run
from microgpt.runs.folder import read_metrics, read_run
from microgpt.tracking.cluster import programs
from microgpt.tracking.registry import registered
from microgpt.tracking.results import log_results
from microgpt.tracking.server import Served, serve_tracking

psycopg2 = pytest.importorskip("psycopg2", reason="the extra `team` is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed (Debian: apt install postgresql)"),
]
#: what may stand nowhere: the clients have it in the address of the server, or in variables
PASSWORD = "sesame-of-the-test"
#: a run takes longer than MLflow takes to open it, so that the database can crash under it
WORDS = ["trainer.max_steps=250", "trainer.eval_interval=50", "trainer.accumulate=4", "trainer.steps_per_call=5"]
NAMES = ("one", "two", "three", "four")
#: reads a list of jobs a line, runs all of them at once as `python -m microgpt.NAME`, and prints their exit codes
FORKING = """
import json, os, runpy, sys, traceback
from microgpt.runtime import prepare_process
prepare_process()
import torch, microgpt.training.lightning, hydra, datasets, mlflow, pandas
import microgpt.training.fit, microgpt.training.run, mlflow.store.tracking.sqlalchemy_store
for line in sys.stdin:
    children = []
    for job in json.loads(line):
        child = os.fork()
        if child == 0:
            out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number, handle in ((0, os.open(os.devnull, os.O_RDONLY)), (1, out), (2, out)):
                os.dup2(handle, number)
            os.chdir(job["cwd"])
            os.environ.update(job["env"])
            sys.argv = ["-m", *job["words"]]
            code = 0
            try:
                runpy.run_module("microgpt." + job["name"], run_name="__main__", alter_sys=True)
            except SystemExit as stop:
                code = stop.code if isinstance(stop.code, int) else 1 if stop.code else 0
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        children.append(child)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


def until(true: Any, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.1)


@dataclass
class Server:
    """`microgpt tracking-server` in a folder; PostgreSQL is its own."""

    home: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def service(self) -> dict[str, str]:
        text = (self.home / "mlruns" / "server" / "postgresql" / "service.conf").read_text()
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def database(self, name: str = "mlflow") -> str:
        given = self.service
        return f"postgresql://{given['user']}:{given['password']}@127.0.0.1:{given['port']}/{name}"

    def start(self) -> None:
        words = [sys.executable, "-m", "microgpt.cli", "tracking-server", "--port", str(self.port)]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        kept["MLFLOW_AUTH_ADMIN_PASSWORD"] = PASSWORD
        with open(self.home / "server.txt", "ab") as log:
            self.process = subprocess.Popen(words, cwd=self.home, env=kept, stdout=log, stderr=log)
        until(self.answers)

    def status(self, host: str = "", path: str = "/health") -> int:
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{self.port}"})
            return connection.getresponse().status

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, (self.home / "server.txt").read_text()
        with suppress(OSError, http.client.HTTPException):
            return self.status() == 200
        return False

    def children(self) -> list[int]:
        import psutil

        assert self.process is not None
        return [child.pid for child in psutil.Process(self.process.pid).children(recursive=True)]

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


class Forking:
    """Stages and tools beside each other, forked from one process.

    Args:
        home: where what they say is kept, as `NAME.txt`.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", FORKING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
        )

    def start(self, names: tuple[str, ...], module: str, words: list[list[str]], uri: str, cwd: Path) -> None:
        assert self.process.stdin is not None
        env = {"MLFLOW_TRACKING_URI": uri}
        jobs = [
            {"name": module, "words": w, "env": env, "cwd": str(cwd), "out": str(self.home / f"{name}.txt")}
            for name, w in zip(names, words)
        ]
        self.process.stdin.write(json.dumps(jobs) + "\n")
        self.process.stdin.flush()

    def ended(self, names: tuple[str, ...]) -> list[str]:
        """What each has said; all must have ended well."""
        assert self.process.stdout is not None
        codes = json.loads(self.process.stdout.readline())
        said = [(self.home / f"{name}.txt").read_text() for name in names]
        assert codes == [0] * len(names), "\n".join(said)
        return said


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    # not below pytest's own folder: where root runs the tests, PostgreSQL is another user, who may not enter it
    with tempfile.TemporaryDirectory(prefix="microgpt-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o711)
        yield Path(name)


@pytest.fixture(scope="module")
def forking(home: Path) -> Iterator[Forking]:
    forking = Forking(home)
    yield forking
    forking.process.stdin.close()  # type: ignore[union-attr]
    forking.process.wait(60)


@pytest.fixture(scope="module")
def server(home: Path, forking: Forking) -> Iterator[Server]:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Server(home, port)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None and server.process.poll() is None:
            server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own variables, for what asks the server from within the tests."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


@pytest.fixture(scope="module")
def team(server: Server, forking: Forking, small: list[str]) -> dict[str, Path]:
    """The folders of four runs that trained at once, while the database crashed and came back."""
    words = [
        [*small, *WORDS, "tracking=server", f"seed={n}", f"hydra.run.dir={name}"] for n, name in enumerate(NAMES)
    ]
    forking.start(NAMES, "train", words, server_uri(server), server.home)
    folders = {name: server.home / name for name in NAMES}
    until(lambda: all(Run(folder, {}).mlflow_id for folder in folders.values()))
    # kill -9 of one of PostgreSQL's processes: it drops all connections and reads its log again
    backends = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    os.kill(rows(server.database(), backends)[0][0], signal.SIGKILL)
    forking.ended(NAMES)
    for folder in folders.values():
        until(lambda folder=folder: status_of(server, folder) == "FINISHED")
    return folders


def server_uri(server: Server) -> str:
    return f"http://admin:{PASSWORD}@127.0.0.1:{server.port}"


def rows(database: str, query: str, *values: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(database)) as connection, connection.cursor() as cursor:
        cursor.execute(query, values)
        return cursor.fetchall()


def status_of(server: Server, folder: Path) -> str:
    found: list[tuple[Any, ...]] = []
    with suppress(psycopg2.OperationalError):  # it is coming back
        found = rows(server.database(), "SELECT status FROM runs WHERE run_uuid = %s", Run(folder, {}).mlflow_id)
    return str(found[0][0]) if found else ""


def assert_all_there_once(database: str, folder: Path) -> None:
    """Straight from the tables: MLflow itself would show a step that is there twice once."""
    query = "SELECT key, step, value FROM metrics WHERE run_uuid = %s AND key NOT LIKE 'system/%%' ORDER BY step"
    there: dict[str, list[tuple[int, float]]] = {}
    for key, step, value in rows(database, query, Run(folder, {}).mlflow_id):
        there.setdefault(key, []).append((step, value))
    wanted = read_metrics(folder)
    assert sorted(there) == sorted(wanted)
    for key, values in wanted.items():
        assert there[key] == [(step, pytest.approx(value)) for step, value in sorted(values.items())], key


def test_four_runs_at_once_lose_nothing_though_the_database_crashed_under_them(
    server: Server, team: dict[str, Path]
) -> None:
    assert len({Run(folder, {}).mlflow_id for folder in team.values()}) == 4
    for name, folder in team.items():
        assert read_run(folder)["status"] == "FINISHED"
        assert sorted(read_metrics(folder)["train/loss"]) == list(range(1, 251))
        assert_all_there_once(server.database(), folder)
        said = (server.home / f"{name}.txt").read_text()
        assert said.count("note: MLflow") <= 1
        assert "Traceback" not in said


def test_config_samples_and_plot_are_artifacts_that_the_server_hands_out(
    server: Server, team: dict[str, Path], credentials: None, tmp_path: Path
) -> None:
    from mlflow import MlflowClient, artifacts

    client = MlflowClient(f"http://127.0.0.1:{server.port}")
    for folder in team.values():
        run: Any = client.get_run(Run(folder, {}).mlflow_id)
        assert run.info.status == "FINISHED"
        assert run.info.artifact_uri.startswith("mlflow-artifacts:/")
        names = {a.path for a in client.list_artifacts(run.info.run_id)}
        assert {"config.yaml", "loss.png", "metrics.jsonl", "eval.csv", "run.json", "samples-250.json"} <= names
    got = artifacts.download_artifacts(
        run_id=run.info.run_id, artifact_path="config.yaml", dst_path=str(tmp_path), tracking_uri=client.tracking_uri
    )
    assert Path(got).read_bytes() == (folder / "config.yaml").read_bytes()
    kept = server.home / "mlruns" / "server" / "artifacts"
    assert len(list(kept.rglob("samples-250.json"))) == 4


def test_a_model_registered_on_the_server_is_had_again_by_its_address_alone(
    server: Server,
    forking: Forking,
    team: dict[str, Path],
    credentials: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["run=one", "register=true", "alias=best", "tracking=server", "hydra.run.dir=exported"]
    forking.start(("export",), "export", [words], server_uri(server), server.home)
    (said,) = forking.ended(("export",))
    assert "registered as version 1 of microgpt" in said
    monkeypatch.chdir(tmp_path)
    got = registered("models:/microgpt@best", TrackingConfig(kind="server", uri=f"http://127.0.0.1:{server.port}"))
    assert not got.is_relative_to(server.home), "it came through the server"
    kept = find(team["one"] / "checkpoints", "best")
    assert (got / "weights.safetensors").read_bytes() == (kept / "weights.safetensors").read_bytes()


def test_the_password_of_an_address_stands_in_no_file_and_no_row(server: Server, team: dict[str, Path]) -> None:
    secrets = (PASSWORD, server.service["password"])
    for path in server.home.rglob("*"):
        if path.is_file() and path.name != "service.conf":
            content = path.read_bytes()
            assert not any(secret.encode() in content for secret in secrets), path
    dumped = subprocess.run(
        [programs() / "pg_dump", "service=mlflow"],
        env={**os.environ, "PGSERVICEFILE": str(server.home / "mlruns" / "server" / "postgresql" / "service.conf")},
        capture_output=True,
        timeout=120,
    )
    assert dumped.returncode == 0, dumped.stderr
    assert b"train/loss" in dumped.stdout
    assert not any(secret.encode() in dumped.stdout for secret in secrets)
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True).stdout
    assert not any(secret.encode() in listed for secret in secrets)
    assert (server.home / "mlruns" / "server" / "postgresql" / "service.conf").stat().st_mode & 0o077 == 0


def test_it_answers_this_machine_only_and_refuses_foreign_hosts_and_strangers(server: Server) -> None:
    search = "/api/2.0/mlflow/experiments/search?max_results=5"
    assert server.status(f"localhost:{server.port}") == 200
    assert server.status("evil.example", search) in (400, 403)
    assert server.status(path=search) == 401
    assert server.status(path="/api/2.0/mlflow-artifacts/artifacts") == 401
    ports = (server.port, int(server.service["port"]))
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    for port in ports:
        bound = [words[1] for words in lines if words[1].endswith(f":{port:04X}") and words[3] == "0A"]
        assert bound == [f"0100007F:{port:04X}"], "only on 127.0.0.1"


def test_a_second_server_in_the_folder_is_refused(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(server.home)
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with pytest.raises(BusyError, match="in use by pid"):
        serve_tracking(Served(port=port))


def test_a_database_without_a_server_takes_first_runs_at_once_and_a_whole_run(
    server: Server, forking: Forking, team: dict[str, Path]
) -> None:
    """The feeder itself speaks to PostgreSQL; the tables are made once, whoever comes first."""
    with closing(psycopg2.connect(server.database())) as connection:
        connection.autocommit = True
        connection.cursor().execute("CREATE DATABASE direct")
    home, uri = server.home / "direct", server.database("direct")
    home.mkdir()
    firsts = tuple(f"first-{n}" for n in range(4))
    forking.start(firsts, "tracking.parent", [["start", "x", "y"]] * 4, uri, home)
    said = forking.ended(firsts)
    assert sum("making the MLflow store" in text for text in said) == 1
    shutil.copytree(team["two"], home / "run")
    (home / "run" / "mlflow.json").unlink()
    forking.start(("feeder",), "tracking.feeder", [["run"]], uri, home)
    forking.ended(("feeder",))
    assert_all_there_once(server.database("direct"), home / "run")
    assert list((home / "mlruns" / "artifacts").rglob("samples-250.json"))
    assert len(rows(server.database("direct"), "SELECT run_uuid FROM runs")) == 5
    # a description that was cut off is made again, and nothing twice
    (config,) = (home / "mlruns" / "artifacts").rglob("config.yaml")
    config.unlink()
    note = json.loads((home / "run" / "mlflow.json").read_text())
    assert note["described"] is True
    (home / "run" / "mlflow.json").write_text(json.dumps(note | {"described": False}))
    forking.start(("feeder",), "tracking.feeder", [["run"]], uri, home)
    forking.ended(("feeder",))
    assert config.read_bytes() == (home / "run" / "config.yaml").read_bytes()
    assert json.loads((home / "run" / "mlflow.json").read_text()) == note
    assert_all_there_once(server.database("direct"), home / "run")


def test_a_run_that_goes_round_the_server_is_told_since_its_artifacts_would_be_lost(
    server: Server, team: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert log_results(TrackingConfig(uri=server.database()), "x", metrics={"a": 1.0}) == ""
    said = capsys.readouterr().err
    assert "behind a tracking server" in said
    assert server.service["password"] not in said


def test_after_sigterm_nothing_is_left_and_everything_is_there_again(server: Server, team: dict[str, Path]) -> None:
    """The last of the file: it ends the server."""
    import psutil

    children = server.children()
    assert len(children) > 2
    assert server.stop() == 143
    until(lambda: not any(psutil.pid_exists(pid) for pid in children), 60)
    assert json.loads((team["one"] / "mlflow.json").read_text())["run_id"]


def test_a_database_that_does_not_answer_costs_one_line_and_no_password(capsys: pytest.CaptureFixture[str]) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))  # bound but not listening: refused
        uri = f"postgresql://me:{PASSWORD}@127.0.0.1:{nobody.getsockname()[1]}/db"
        assert log_results(TrackingConfig(uri=uri), "x", metrics={"a": 1.0}) == ""
    said = capsys.readouterr().err
    assert said.startswith("note: not logged to MLflow (DiskError: the MLflow store")
    assert said.count("\n") == 1
    assert PASSWORD not in said
