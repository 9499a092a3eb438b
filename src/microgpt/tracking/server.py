"""The tracking server of a team: MLflow on PostgreSQL, which also takes and hands out the artifacts.

Where MLFLOW_AUTH_ADMIN_PASSWORD is set, clients need a name and a password (MLflow's own basic auth).
"""

from __future__ import annotations

import ipaddress
import os
import secrets
import signal
import subprocess
import sys
import time
import types
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from microgpt.errors import SIGINT, SIGTERM, DiskError, UsageError
from microgpt.files import FolderLock, write_text
from microgpt.tracking.address import without_password
from microgpt.tracking.cluster import LOG, Cluster
from microgpt.tracking.ui import HOST, environment, refuse_taken

FOLDER = Path("mlruns") / "server"
BACKEND, REGISTRY = "MLFLOW_BACKEND_STORE_URI", "MLFLOW_REGISTRY_STORE_URI"
QUIET = {"MLFLOW_LOGGING_LEVEL": "WARNING", "PYTHONWARNINGS": "ignore"}
ADMIN, PASSWORD, AUTH = "MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "auth.ini"
STOP_SECONDS = 10.0


@dataclass(frozen=True)
class Served:
    """What the server is started with.

    Attributes:
        backend: address of a database; empty: a PostgreSQL of its own below `folder`.
        artifacts: where artifacts go, a folder or what MLflow takes (s3://...); empty: below `folder`.
        host: address to listen on; all but loopback need a password.
        port: of it.
        allowed_hosts: further names by which clients may call the server.
        folder: of the database and the artifacts.
    """

    backend: str = ""
    artifacts: str = ""
    host: str = HOST
    port: int = 5000
    allowed_hosts: tuple[str, ...] = ()
    folder: Path = FOLDER

    def require_password(self) -> None:
        """Refuse to listen to the network without a password.

        Raises:
            UsageError: the host is not loopback and there is no password.
        """
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if not loopback and not os.environ.get(PASSWORD):
            raise UsageError(
                f"host {self.host} can be reached from other machines, and there is no password",
                f"set {PASSWORD}, or listen on {HOST}",
            )


def command(served: Served, protected: bool) -> list[str]:
    """The words that start MLflow. The database's address is not among them: they are for all users to see."""
    hosts = [f"{HOST}:{served.port}", f"localhost:{served.port}", *served.allowed_hosts]
    words = [sys.executable, "-m", "mlflow", "server", "--host", served.host, "--port", str(served.port)]
    words += ["--workers", "1", "--allowed-hosts", ",".join(hosts), "--uvicorn-opts", "--log-level warning"]
    artifacts = served.artifacts or str((served.folder / "artifacts").resolve())
    words += ["--serve-artifacts", "--artifacts-destination", artifacts]
    return [*words, "--app-name", "basic-auth"] if protected else words


def protect(surroundings: dict[str, str], folder: Path) -> bool:
    """Set up basic auth where there is a password for its administrator; whether there is one."""
    if not surroundings.get(PASSWORD):
        return False
    settings = {
        "default_permission": "EDIT",  # a team's members log into each other's experiments
        "database_uri": surroundings[BACKEND],  # the password of the database is not in it
        "authorization_function": "mlflow.server.auth:authenticate_request_basic_auth",
        "grant_default_workspace_access": "false",
        "auth_cache_ttl_seconds": "60",  # a password is hashed for a tenth of a second, and each batch shows it
    }
    lines = [f"{key} = {value}".replace("%", "%%") for key, value in settings.items()]
    write_text(folder / AUTH, "\n".join(["[mlflow]", *lines, ""]))
    surroundings["MLFLOW_AUTH_CONFIG_PATH"] = str((folder / AUTH).resolve())
    surroundings.setdefault(ADMIN, "admin")
    surroundings["MLFLOW_FLASK_SERVER_SECRET_KEY"] = secrets.token_hex(32)
    return True


def serve_tracking(served: Served) -> int:
    """Run the server until Ctrl-C or SIGTERM and return the exit code.

    Raises:
        UsageError: the port is taken, a password is missing, or there is no PostgreSQL.
        DiskError: the database or MLflow does not start.
        BusyError: another server owns the folder.
    """
    served.require_password()
    refuse_taken(served.port, served.host)
    lock = FolderLock(served.folder, "start this in another folder")
    cluster: Cluster | None = None
    with signals():
        try:
            surroundings = {**environment(), **QUIET}
            uri = served.backend
            if not uri:
                cluster = Cluster(served.folder / "postgresql")
                print(f"PostgreSQL: {cluster.folder}", flush=True)
                uri, surroundings["PGPASSWORD"] = cluster.start()
            surroundings[BACKEND] = surroundings[REGISTRY] = without_password(uri, surroundings)
            return _run(served, surroundings, cluster)
        except Ended as end:
            return SIGTERM if end.number == signal.SIGTERM else SIGINT
        finally:
            if cluster is not None:
                cluster.stop()
            lock.close()


class Ended(BaseException):
    """A signal asked to end.

    Args:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def signals() -> Generator[None]:
    """SIGINT and SIGTERM as an exception while the block runs; once, so that nothing interrupts the ending."""

    def end(number: int, frame: types.FrameType | None) -> None:
        for each in former:
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    former = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in former:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _run(served: Served, surroundings: dict[str, str], cluster: Cluster | None) -> int:
    protected = protect(surroundings, served.folder)
    print("MLflow starts; a new database takes half a minute", flush=True)
    process = subprocess.Popen(
        command(served, protected),
        env=surroundings,
        stdin=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is for us, who pass it on
    )
    try:
        _say_when_ready(process, served, protected)
        while process.poll() is None:
            if cluster is not None and not cluster.is_running():
                raise DiskError("PostgreSQL has ended", f"see {cluster.folder / LOG}, and start again")
            time.sleep(0.5)
        raise DiskError("MLflow's server has ended", "its last lines above say why")
    finally:
        _end(process)


def _say_when_ready(process: subprocess.Popen[bytes], served: Served, protected: bool) -> None:
    everywhere = served.host in ("0.0.0.0", "::")
    host = HOST if everywhere else served.host
    address = f"http://[{host}]:{served.port}" if ":" in host else f"http://{host}:{served.port}"
    who = "MLFLOW_TRACKING_USERNAME=... MLFLOW_TRACKING_PASSWORD=... " if protected else ""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while process.poll() is None:
        with suppress(OSError):
            with direct.open(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    print(f"tracking server: {address} (Ctrl-C ends it)")
                    print(f"next: MLFLOW_TRACKING_URI={address} {who}python -m microgpt.train tracking=server",
                          flush=True)  # fmt: skip
                    return
        time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End MLflow and the process that it has started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
