"""One thread, a small model directory of each kind of tokenizer, and file operations that fail or kill at will."""

from __future__ import annotations

import builtins
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from microgpt.checkpoints.folder import META, TOKENIZER, WEIGHTS, write_folder
from microgpt.checkpoints.model import model_files
from microgpt.config.schema import ModelConfig
from microgpt.model.gpt import GPT
from microgpt.tokenizer.base import Tokenizer
from microgpt.tokenizer.bpe import train_bpe
from microgpt.tokenizer.char import CharTokenizer

torch.set_num_threads(1)

SMALL = ModelConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, mlp_hidden=8, init="normal")


def small_model(vocab_size: int, config: ModelConfig = SMALL) -> GPT:
    """A model whose every number is drawn."""
    model = GPT(config, vocab_size)
    model.init_weights(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    return model.eval()


def tokenizer_of(kind: str) -> Tokenizer:
    return CharTokenizer("abc é\n") if kind == "char" else train_bpe(["abc abd abe"] * 9, 280)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Iterator[Path]:
    """In memory where there is such a place: these tests sync thousands of files."""
    if not os.path.isdir("/dev/shm"):
        yield tmp_path
        return
    folder = tempfile.mkdtemp(prefix="microgpt-test-", dir="/dev/shm")
    yield Path(folder)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def whole_files() -> dict[str, dict[str, bytes]]:
    """The files of a small model directory by kind of tokenizer."""
    found: dict[str, dict[str, bytes]] = {}
    for kind in ("char", "bpe"):
        tokenizer = tokenizer_of(kind)
        found[kind] = model_files(small_model(tokenizer.vocab_size), tokenizer, {"step": 3})
    return found


@pytest.fixture
def whole(tmp_path: Path, whole_files: dict[str, dict[str, bytes]]) -> Path:
    """A model directory with its manifest."""
    write_folder(tmp_path / "model", whole_files["char"], 3)
    return tmp_path / "model"


@pytest.fixture
def sealed() -> Callable[[Path], None]:
    """Write a manifest over whatever files a folder holds, as an attacker or another tool would."""

    def seal(folder: Path) -> None:
        listed = {
            p.name: {"sha256": hashlib.sha256(p.read_bytes()).hexdigest(), "bytes": p.stat().st_size}
            for p in sorted(folder.iterdir())
            if p.name != "MANIFEST.json"
        }
        contents = {name: (folder / name).read_bytes() for name in listed}
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        write_folder(folder, contents, 3)

    return seal


@pytest.fixture
def model_names() -> tuple[str, ...]:
    return WEIGHTS, TOKENIZER, META


def safetensors_bytes(header: Any, payload: bytes = b"") -> bytes:
    """A safetensors file of any header: a JSON value, or text that is one or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + payload


@pytest.fixture
def safetensors_file() -> Callable[..., bytes]:
    return safetensors_bytes


class WatchedFile:
    """A file whose writes are counted as operations too."""

    def __init__(self, file: Any, watched: Callable[[str], None]) -> None:
        self._file, self._watched = file, watched

    def write(self, content: Any) -> int:
        self._watched("write")
        return self._file.write(content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> WatchedFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


@contextmanager
def watched(operation: Callable[[str], None]) -> Iterator[None]:
    """Call `operation` before each open for writing, write, fsync, mkdir and rename."""
    patch = pytest.MonkeyPatch()
    real_open = io.open

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if not set(mode) & set("wax+"):
            return real_open(file, mode, *args, **kwargs)
        operation("open")
        return WatchedFile(real_open(file, mode, *args, **kwargs), operation)

    def before(name: str) -> None:
        real = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            operation(name)
            return real(*args, **kwargs)

        patch.setattr(os, name, call)

    patch.setattr(io, "open", opened)
    patch.setattr(builtins, "open", opened)
    for name in ("fsync", "mkdir", "rename", "replace"):
        before(name)
    try:
        yield
    finally:
        patch.undo()


@pytest.fixture
def operations() -> Callable[[Callable[[], object]], list[str]]:
    """The file operations of an action, in order."""

    def count(action: Callable[[], object]) -> list[str]:
        seen: list[str] = []
        with watched(seen.append):
            action()
        return seen

    return count


@pytest.fixture
def failing() -> Callable[[Callable[[], object], int, bool], None]:
    """Run an action whose Nth operation (from 0) fails, and with `forever` every one after it."""

    def run(action: Callable[[], object], number: int, forever: bool) -> None:
        seen: list[str] = []

        def operation(name: str) -> None:
            seen.append(name)
            if len(seen) == number + 1 or (forever and len(seen) > number):
                raise OSError(28, "No space left on device")

        with watched(operation):
            action()

    return run


@pytest.fixture
def killed() -> Callable[[Callable[[], object], int], bool]:
    """Run an action in a fork that kills itself before its Nth system call; false where it has fewer."""

    def run(action: Callable[[], object], number: int) -> bool:
        child = os.fork()
        if child == 0:
            seen = 0

            def operation(_: str) -> None:
                nonlocal seen
                seen += 1
                if seen == number + 1:
                    os.kill(os.getpid(), signal.SIGKILL)

            def heard(event: str, args: tuple[Any, ...]) -> None:
                if event.startswith(("os.", "open", "shutil.", "fcntl.", "ctypes.call")):
                    operation(event)

            with suppress(BaseException), watched(operation):
                sys.addaudithook(heard)
                action()
                os._exit(0)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            return True
        assert os.waitstatus_to_exitcode(status) == 0
        return False

    return run


@pytest.fixture
def opened_files() -> Iterator[list[str]]:
    """Every path that is opened while the test runs."""
    LISTENERS.append(found := [])
    yield found
    LISTENERS.remove(found)


LISTENERS: list[list[str]] = []


def _heard(event: str, args: tuple[Any, ...]) -> None:
    if event == "open":
        for listener in LISTENERS:
            listener.append(str(args[0]))


sys.addaudithook(_heard)


@pytest.fixture
def no_hang() -> Iterator[Callable[[float], None]]:
    """Raises in the test when a stretch takes longer than it may; call it again for the next stretch."""

    def rung(number: int, frame: object) -> None:
        raise AssertionError("it hangs")

    former = signal.signal(signal.SIGALRM, rung)
    yield lambda seconds: signal.setitimer(signal.ITIMER_REAL, seconds)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, former)
