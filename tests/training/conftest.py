"""Several processes of one run, started as torchrun starts them, without paying for the imports of each."""

from __future__ import annotations

import importlib.util
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from warm import Child, Warm


def _warm() -> Any:
    """tests/faults/warm.py: stages as processes that fork from one with everything imported."""
    if "warm" not in sys.modules:
        spec = importlib.util.spec_from_file_location("warm", Path(__file__).parents[1] / "faults" / "warm.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["warm"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["warm"])
    return sys.modules["warm"]


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Stages that start in no time and can be killed."""
    with _warm().warm_process(tmp_path_factory.mktemp("streams")) as made:
        yield made


Start = Callable[..., "list[Child]"]


@pytest.fixture(scope="session")
def start(warm: Warm) -> Start:
    """Start `python -m microgpt.train WORDS` in so many processes with the environment that torchrun gives them."""

    def ranks(world: int, *words: str, cwd: Path) -> list[Child]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        common = {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"}
        return [
            warm.start(
                "train",
                *words,
                cwd=cwd,
                env={**common, "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            )
            for rank in range(world)
        ]

    return ranks
