"""docs/serving.md tells the truth: its curl lines and its Python are run against a server."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"
CURLS = re.findall(r"^curl .*$", PAGE, re.MULTILINE)
(PYTHON,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("line", CURLS)
def test_every_curl_line_is_answered(server: Any, line: str) -> None:
    words = shlex.split(line.replace(ADDRESS, server.url))
    done = subprocess.run([*words, "-sS", "--fail"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_python_lines_run(server: Any) -> None:
    program = PYTHON.replace(ADDRESS, server.url)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_limits_on_the_page_are_those_of_the_code() -> None:
    from microgpt.serving.schemas import CHOICES, SAMPLES
    from microgpt.web.security import Security

    assert f"1 to {CHOICES} answers" in PAGE
    assert f"up to {SAMPLES};" in PAGE
    assert f"for {Security().drain_s:g} seconds" in PAGE
