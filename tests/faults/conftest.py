"""What the fault tests share: a place in memory, a warm process and the run that nothing happened to.

`MICROGPT_TORTURE=1` (`make torture`) runs the long versions.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from warm import Warm, warm_process

from runs import RUN

TORTURE = os.environ.get("MICROGPT_TORTURE") == "1"


@pytest.fixture(scope="session")
def torture() -> bool:
    """Whether the long versions were asked for."""
    return TORTURE


def _place() -> Path:
    return Path(tempfile.mkdtemp(prefix="microgpt-faults-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In memory where there is such a place: these tests sync thousands of files."""
    folder = _place()
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Stages that start in no time and can be killed."""
    with warm_process(tmp_path_factory.mktemp("streams")) as made:
        yield made


@pytest.fixture(scope="session")
def unbroken(warm: Warm) -> Iterator[Path]:
    """The folder of a run that nothing happened to."""
    home = _place()
    warm.run("train", *RUN, cwd=home)
    yield home / "run"
    shutil.rmtree(home, ignore_errors=True)
