"""The MLflow UI, started with safe settings: this machine only, no jobs, no pickles."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from contextlib import closing

from microgpt.config.schema import TrackingConfig
from microgpt.errors import UsageError, redacted
from microgpt.tracking.address import sqlite_file, without_password
from microgpt.tracking.start import tracking_uri

HOST = "127.0.0.1"


def command(uri: str, port: int) -> list[str]:
    """The words that start the server."""
    hosts = f"{HOST}:{port},localhost:{port}"
    words = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--host", HOST]
    words += ["--port", str(port), "--workers", "1", "--allowed-hosts", hosts]
    if sqlite_file(uri):
        words += ["--default-artifact-root", "./mlruns/artifacts"]
    return words


def environment() -> dict[str, str]:
    """The server's environment: no job runner, no pickle, no telemetry."""
    safe = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    return {**os.environ, **safe}


def refuse_taken(port: int, host: str = HOST) -> None:
    """Look whether a port is free.

    Raises:
        UsageError: it is not.
    """
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"cannot listen on {host}:{port} ({error.strerror})", "choose --port") from None
            raise UsageError(f"port {port} is in use", "choose another with --port") from None


def serve_ui(uri: str, port: int) -> int:
    """Run the server until Ctrl-C; where the runs are on a server already, say only where its UI is.

    Raises:
        UsageError: the port is taken.
    """
    from microgpt.tracking.store import ensure_schema

    address = tracking_uri(TrackingConfig(uri=uri))
    if address.startswith("http"):
        print(f"MLflow UI: {redacted(address)} (the server of these runs has it)")
        return 0
    refuse_taken(port)
    surroundings = environment()
    address = without_password(address, surroundings)  # the words of a command are for all users to see
    ensure_schema(address)
    print(f"MLflow UI: http://{HOST}:{port} (ready in some seconds; Ctrl-C ends it)", flush=True)
    process = subprocess.Popen(command(address, port), env=surroundings)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait(10)
        return 0
