"""The docs page tells the truth: each of its commands, run as written, prints what stands below it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path

import pytest

FOLDER = os.environ.get("MICROGPT_DATA_DIR")
HERE = Path(__file__).resolve()
# The page as it stands in the repository, or beside the package while both are being written.
PAGES = [HERE.parents[2] / "docs" / "reference.md", HERE.parents[1] / "docs_reference.md"]
PAGE = next((page for page in PAGES if page.is_file()), PAGES[0])

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not FOLDER or not Path(FOLDER, "names.txt").is_file(),
        reason="MICROGPT_DATA_DIR names no folder with names.txt, which the page's output is for",
    ),
]


def test_every_command_of_the_page_prints_what_the_page_says(tmp_path: Path) -> None:
    pairs = re.findall(r"```sh\n(.*?)```\n\n```text\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(pairs) >= 8
    shutil.copy(Path(str(FOLDER), "names.txt"), tmp_path)  # in place of a download
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    del environment["MICROGPT_DATA_DIR"]
    for command, expected in pairs:
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.stderr == ""
        printed = "\n".join(line.rstrip() for line in done.stdout.splitlines()).strip()
        as_promised = OutputChecker().check_output(expected.strip(), printed, ELLIPSIS)
        assert as_promised, f"{command}\nprinted\n{printed}"
