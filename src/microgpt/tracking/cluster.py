"""A PostgreSQL of the project's own: made in an ignored folder, on 127.0.0.1, with a random password.

PostgreSQL's own programs do the work. They refuse to run as root, so root lends the folder to another user.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

from microgpt import files
from microgpt.errors import DiskError, UsageError

USER, DATABASE, SERVICE, LOG = "microgpt", "mlflow", "service.conf", "postgresql.log"
HOST = "127.0.0.1"
#: where Debian, Red Hat and Homebrew put programs that are not on the PATH
PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql*/bin",
          "usr/local/opt/postgresql*/bin")  # fmt: skip
NAME_ONE = "name a database in MLFLOW_BACKEND_STORE_URI=postgresql://user:password@host/database"
#: a server that was killed reads its log again before it answers
START_SECONDS = 300.0


def programs(version: str = "") -> Path | None:
    """The folder of PostgreSQL's programs, the newest, or those of a major version; None where there are none."""
    found = [path for pattern in PLACES for path in Path("/").glob(pattern) if (path / "initdb").exists()]
    if which := shutil.which("initdb"):
        found.append(Path(which).resolve().parent)
    numbered = [(_major(path), path) for path in found]
    fitting = [(int(number), path) for number, path in numbered if number and version in ("", number)]
    return max(fitting)[1] if fitting else None


def _major(folder: Path) -> str:
    try:
        done = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    number = (done.stdout.split() or [""])[2:3]
    digits = number[0].partition(".")[0] if number else ""
    return digits if digits.isdecimal() else ""


def _owner() -> dict[str, Any]:
    """Arguments for subprocess that make the programs run as somebody who is not root."""
    if os.geteuid():
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            user = pwd.getpwnam(name)
            return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    raise UsageError("PostgreSQL does not run as root", f"start this as another user, or {NAME_ONE}")


class Cluster:
    """A PostgreSQL server with its data in a folder.

    Args:
        folder: of the data and of `service.conf`, by which psql and pg_dump find the server.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self.data = self.folder / "data"
        self._server: subprocess.Popen[Any] | None = None
        self._lent = _owner()

    def start(self) -> tuple[str, str]:
        """Start the server, making the cluster first where there is none.

        Returns:
            The address without the password, and the password.

        Raises:
            UsageError: no PostgreSQL, or none of the version that made the data, is installed.
            DiskError: it does not start.
        """
        version = self._version()
        place = programs(version)
        if place is None:
            what = f"PostgreSQL {version}, which made {self.data}," if version else "PostgreSQL"
            mend = f"install it (Debian: apt install postgresql), or {NAME_ONE}"
            raise UsageError(f"{what} is not installed", mend)
        if not version:
            self._make(place)
        password = self._service()["password"]
        with closing(socket.socket()) as probe:
            probe.bind((HOST, 0))
            port = int(probe.getsockname()[1])
        self._write_service(password, port)
        self._stop_leftover(place)
        options = {"listen_addresses": HOST, "port": port, "unix_socket_directories": "", "log_min_messages": "error"}
        words = [word for key, value in options.items() for word in ("-c", f"{key}={value}")]
        with open(self.folder / LOG, "ab") as log:
            self._server = subprocess.Popen(
                [place / "postgres", "-D", self.data, *words],
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # a Ctrl-C is for us, who stop it when nobody needs it
                **self._lent,
            )
        self._wait()
        return f"postgresql://{USER}@{HOST}:{port}/{DATABASE}", password

    def is_running(self) -> bool:
        """Whether the server that was started is still there."""
        return self._server is not None and self._server.poll() is None

    def stop(self) -> None:
        """Stop the server; what it has taken in is on the disk."""
        if self._server is not None and self.is_running():
            self._server.send_signal(signal.SIGINT)  # "fast": open connections are cut, nothing is lost
            try:
                self._server.wait(60)
            except subprocess.TimeoutExpired:
                self._server.send_signal(signal.SIGQUIT)
                self._server.wait(60)

    def _version(self) -> str:
        with suppress(OSError):
            return (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        return ""

    def _make(self, place: Path) -> None:
        """initdb beside the folder's place, then a rename: a kill leaves no half cluster under the name."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.folder.chmod(0o711)  # the other user passes through
            files.remove_leftovers(self.folder)
            fresh = self.folder / f".data.{os.getpid()}.tmp"
            fresh.mkdir(mode=0o700)
            word = self.folder / f".word.{os.getpid()}.tmp"
            word.touch(mode=0o600)
            password = secrets.token_urlsafe(24)
            word.write_text(password + "\n", encoding="ascii")
            if self._lent:
                for path in (fresh, word):
                    os.chown(path, self._lent["user"], self._lent["group"])
            words = ["--username", USER, "--pwfile", word, "--auth", "scram-sha-256", "--encoding", "UTF8"]
            self._ask([place / "initdb", "-D", fresh, *words, "--locale", "C"])
            self._ask([place / "postgres", "--single", "-D", fresh, "postgres"], f"CREATE DATABASE {DATABASE};\n")
            word.unlink()
            self._write_service(password, 0)
            os.replace(fresh, self.data)
            files.fsync_folder(self.folder)
        except OSError as error:
            raise files.disk_error(error, self.folder, 0) from error

    def _ask(self, words: list[Any], text: str = "") -> None:
        done = subprocess.run(words, cwd="/", input=text, capture_output=True, text=True, **self._lent)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise DiskError(f"PostgreSQL's {words[0].name} failed in {self.folder} ({said[:200]})", NAME_ONE)

    def _write_service(self, password: str, port: int) -> None:
        """How PostgreSQL's programs find the server: PGSERVICEFILE=service.conf psql service=mlflow."""
        lines = [f"[{DATABASE}]", f"host={HOST}", f"port={port}", f"user={USER}", f"dbname={DATABASE}"]
        fresh = self.folder / f".{SERVICE}.{os.getpid()}.tmp"
        fresh.touch(mode=0o600)  # before there is anything to read in it
        fresh.write_text("\n".join([*lines, f"password={password}", ""]), encoding="ascii")
        os.replace(fresh, self.folder / SERVICE)

    def _service(self) -> dict[str, str]:
        try:
            lines = (self.folder / SERVICE).read_text(encoding="ascii").splitlines()
        except OSError as error:
            raise files.disk_error(error, self.folder / SERVICE, 0) from error
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def _stop_leftover(self, place: Path) -> None:
        """A server whose starter was killed goes on alone; it is ours, since the caller holds the folder's lock."""
        if (self.data / "postmaster.pid").exists():
            words = [place / "pg_ctl", "stop", "-D", self.data, "-m", "fast", "-w"]
            subprocess.run(words, cwd="/", capture_output=True, **self._lent)

    def _wait(self) -> None:
        """Wait until it takes connections: the eighth line of its pid file says so."""
        assert self._server is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._server.poll() is not None:
                break
            with suppress(OSError, IndexError):
                lines = (self.data / "postmaster.pid").read_text(encoding="ascii", errors="replace").splitlines()
                if lines[0].strip() == str(self._server.pid) and lines[7].strip() == "ready":
                    return
            time.sleep(0.05)
        self.stop()
        with open(self.folder / LOG, encoding="utf-8", errors="replace") as file:
            said = (file.read().strip().splitlines() or ["no reason given"])[-1]
        raise DiskError(f"PostgreSQL did not start ({said[:200]})", f"see {self.folder / LOG}")
