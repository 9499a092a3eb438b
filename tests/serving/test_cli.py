"""The verb `serve`: which model is meant, what is refused before anything listens, and with which exit code."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from microgpt.cli.serve import sources_of
from microgpt.errors import UsageError

Serve = Callable[..., Any]
REFUSE = """import sys
sys.modules['fastapi'] = None
from microgpt.cli import main
main()"""


def refused(code: int, *words: str | Path, cwd: Path, python: str = "", **env: str) -> str:
    """The one line that `microgpt serve` ends with."""
    start = ["-c", python] if python else ["-m", "microgpt.cli"]
    done = subprocess.run(
        [sys.executable, *start, "serve", "--port", "0", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    (line,) = done.stderr.splitlines()
    return line


def test_models_by_name_flag_environment_and_habit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MODEL_DIR", raising=False)
    assert sources_of("", []) == {"microgpt": "latest"}
    (tmp_path / "output").mkdir()
    assert sources_of("", []) == {"microgpt": "output"}
    monkeypatch.setenv("MODEL_DIR", "elsewhere")
    assert sources_of("", []) == {"microgpt": "elsewhere"}
    assert sources_of("here", []) == {"microgpt": "here"}
    assert sources_of("", ["a=x", "b=y=z"]) == {"a": "x", "b": "y=z"}
    assert sources_of("here", ["a=x"]) == {"microgpt": "here", "a": "x"}
    for wrong in (["a"], ["a="], ["=x"], [".a=x"], ["a b=x"], ["a/b=x"], ["a=x", "a=y"]):
        with pytest.raises(UsageError):
            sources_of("", wrong)


def test_the_environment_names_model_and_port(serve: Serve, talker: Path) -> None:
    server = serve(env={"MODEL_DIR": str(talker), "PORT": "1"})  # the flag --port 0 comes first
    assert server.post("/microgpt/v1/generate", {}).status_code == 200
    assert server.stop() == 143


def test_what_cannot_be_served_is_one_line(tmp_path: Path, talker: Path) -> None:
    assert "no run 'nothing'" in refused(4, "-m", "nothing", cwd=tmp_path)
    damaged = shutil.copytree(talker, tmp_path / "damaged")
    (damaged / "weights.safetensors").write_bytes(b"\0" * 100)
    assert refused(4, "-m", damaged, cwd=tmp_path).startswith("error: ")
    assert "needs an API key" not in refused(2, "--model", "a", cwd=tmp_path)
    assert "no API key" in refused(2, "-m", talker, "--host", "0.0.0.0", cwd=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"port {port} on 127.0.0.1 is in use" in refused(2, "-m", talker, "--port", str(port), cwd=tmp_path)


def test_weights_that_turn_out_bad_while_loading_end_the_server(tmp_path: Path, talker: Path) -> None:
    import numpy as np

    poisoned = shutil.copytree(talker, tmp_path / "poisoned")
    (poisoned / "MANIFEST.json").unlink()
    content = (poisoned / "weights.safetensors").read_bytes()
    (poisoned / "weights.safetensors").write_bytes(content[:-4] + np.float32(np.nan).tobytes())
    assert "NaN" in refused(4, "-m", poisoned, cwd=tmp_path)


def test_without_the_extra_it_says_what_to_install(tmp_path: Path, talker: Path) -> None:
    line = refused(2, "-m", talker, cwd=tmp_path, python=REFUSE)
    assert line == "error: the server needs fastapi, which is not installed - pip install 'microgpt[serve]'"
