"""What all tests share: a cache of their own, small runs, and the stages as a user starts them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from microgpt.runtime import prepare_process

sys.path.insert(0, str(Path(__file__).parent))  # for what test files share
prepare_process()
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # started in the background, where shells ignore Ctrl-C: the tests' own processes must hear it
    signal.signal(signal.SIGINT, signal.default_int_handler)

#: a run of two seconds
SMALL = [
    *("data=names", "tokenizer=char", "model.n_layer=1", "model.n_embd=16", "model.block_size=32"),
    *("data.batch_size=4", "trainer.max_steps=40", "trainer.eval_interval=10", "sampling.num_samples=2"),
    "sampling.max_new_tokens=12",
]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests stay out of the user's cache, unless a cache is given, and out of the user's MLflow store."""
    os.environ.pop("MLFLOW_TRACKING_URI", None)
    os.environ.setdefault("MICROGPT_CACHE_DIR", str(tmp_path_factory.getbasetemp().parent / "cache"))


@pytest.fixture(autouse=True)
def _own_store() -> Iterator[None]:
    """MLflow writes the store that a test opens in this process into the environment: the next test has its own."""
    yield
    os.environ.pop("MLFLOW_TRACKING_URI", None)


Stage = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """Run `python -m microgpt.<name> ...` in the test's own folder; its exit code must be as expected."""

    def run(
        name: str,
        *words: str,
        code: int = 0,
        env: dict[str, str] | None = None,
        stdin: str = "",
        cwd: Path = tmp_path,
    ):
        done = subprocess.run(
            [sys.executable, "-m", f"microgpt.{name}", *words],
            cwd=cwd,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, f"{name} {words}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    return run
